"""What the reload benchmark takes a machine to cost."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import reload_vs_prefill  # noqa: E402  # needs transformers


def priced(*words):
    return reload_vs_prefill.prices(reload_vs_prefill.arguments().parse_args([*words]))["machine_usd_per_hour"]


@pytest.mark.parametrize(("name", "usd"), [("NVIDIA H100 80GB HBM3", 2.5), ("NVIDIA H200", 3.5)])
def test_a_gpu_costs_what_the_files_say_of_its_name(monkeypatch, name, usd):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)

    value, source = priced("--device", "cuda")

    assert value == usd
    assert "2026-05" in source


def test_a_gpu_without_a_price_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Voodoo 2")

    with pytest.raises(SystemExit, match=r"no price is known for 'Voodoo 2'; give --machine-usd-per-hour"):
        priced("--device", "cuda")


def test_a_price_that_is_given_asks_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: pytest.fail("asked"))

    assert priced("--device", "cuda", "--machine-usd-per-hour", "1.25") == (1.25, "given on the command line")
