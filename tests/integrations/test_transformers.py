"""The adapter in use: batches, follow-ups, sampling, caches handled as transformers handles them."""

import copy
import threading

import pytest
import torch
from lib.text import prompt_ids
from store_helpers import ids_of, raw_damage
from transformers import DynamicCache

from kvtier.integrations.cache import block_views
from kvtier.integrations.transformers import CachedLM
from kvtier.opening import open_store


def alone(model, ids, *, max_new_tokens, **options):
    """What transformers gives without kvtier."""
    arguments = {"do_sample": False, "pad_token_id": 0, **options}
    output = model.generate(torch.tensor([ids]), max_new_tokens=max_new_tokens, **arguments)
    return output[:, len(ids) :].tolist()


def wrong_blocks(lm, ids):
    """How many blocks are held of a prompt, and the numbers of those that differ from a fresh computation."""
    cache = DynamicCache(config=lm.model.config)
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([ids]), past_key_values=cache)
    truth = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    found = torch.zeros_like(truth)
    size = lm.spec.block_tokens
    hit = lm.store.get(ids, block_views(found, 0, len(ids) // size, size))
    parts = [(each[..., i * size : (i + 1) * size, :] for each in (truth, found)) for i in range(hit.num_blocks)]
    return hit.num_blocks, [i for i, pair in enumerate(parts) if not torch.allclose(*pair, atol=1e-4)]


# Prefill


@pytest.mark.parametrize("count", [1, 15, 16, 17, 47, 48, 49])
def test_a_prefill_leaves_all_whole_blocks_in_the_store(tiny, open_lm, count):
    lm = open_lm(tiny(), host=8)
    ids = ids_of(1, count)

    lm.prefill(ids)

    assert lm.store.match(ids).num_blocks == count // 16
    assert wrong_blocks(lm, ids) == (count // 16, [])


def test_a_prefill_says_where_its_time_went(tiny, open_lm):
    done = open_lm(tiny(), host=8).prefill(ids_of(1, 40))

    assert set(done.seconds) == {"load", "compute", "save"}
    assert all(seconds >= 0 for seconds in done.seconds.values())


def test_the_control_reuses_nothing(tiny):
    control = CachedLM(tiny(), None)
    control.prefill(ids_of(1, 40))

    assert control.prefill(ids_of(1, 40)).num_reused == 0


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_prefilled_prompt_can_be_continued_by_hand(tiny, open_lm, room):
    model = tiny()
    lm = open_lm(model, host=8)
    ids = ids_of(1, 40)

    done = lm.prefill(ids, max_new_tokens=room)
    said, logits = [], done.logits
    with torch.no_grad():
        for _ in range(20):
            said.append(int(logits.argmax()))
            logits = model(input_ids=torch.tensor([said[-1:]]), past_key_values=done.past_key_values).logits[0, -1]

    assert said == alone(model, ids, max_new_tokens=20)[0]


def test_a_prompt_longer_than_the_store_is_still_right(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=2)
    ids = ids_of(1, 100)

    first = lm.generate(ids, max_new_tokens=6)
    second = lm.generate(ids, max_new_tokens=6)

    assert [first] == [second] == alone(model, ids, max_new_tokens=6)


def test_a_damaged_block_is_computed_again(tiny, open_lm, tmp_path):
    model = tiny()
    lm = open_lm(model, tmp_path, disk=16)
    ids = ids_of(1, 60)
    lm.prefill(ids)
    raw_damage(lm.store.tiers[-1], lm.store.name(ids).keys[1])

    said = lm.generate(ids, max_new_tokens=6)

    assert [said] == alone(model, ids, max_new_tokens=6)
    assert lm.store.stats()["counters"]["damaged_blocks"] == 1
    assert wrong_blocks(lm, ids) == (3, [])


# Batches


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    "counts",
    [(40, 40), (50, 33), (1, 40), (1, 1), (5, 16, 17, 64), (48, 3, 2)],
    ids=lambda counts: "-".join(map(str, counts)),
)
def test_a_batch_says_what_its_prompts_say_alone(tiny, open_lm, kind, counts):
    model = tiny(kind)
    lm = open_lm(model, host=32)
    prompts = [ids_of(seed, count) for seed, count in enumerate(counts)]

    expected = [alone(model, ids, max_new_tokens=6)[0] for ids in prompts]

    assert lm.generate(prompts, max_new_tokens=6) == expected
    assert lm.generate(prompts, max_new_tokens=6) == expected


def test_prompts_of_a_batch_share_what_they_have_in_common(tiny, open_lm):
    lm = open_lm(tiny(), host=32)
    head = ids_of(1, 32)

    lm.generate([head + ids_of(seed, 9) for seed in (2, 3, 4)], max_new_tokens=2)

    assert lm.store.stats()["counters"]["hit_blocks"] == 4


def test_a_batch_of_one_keeps_its_list(tiny, open_lm):
    lm = open_lm(tiny(), host=32)
    ids = ids_of(1, 20)

    assert lm.generate([ids], max_new_tokens=3) == [lm.generate(ids, max_new_tokens=3)]


# What was decoded


@pytest.mark.parametrize("count", [1, 8, 15, 20, 24, 33])
def test_a_follow_up_hits_beyond_its_prompt(tiny, open_lm, count):
    lm = open_lm(tiny(), host=32)
    ids = ids_of(1, count)
    answer = lm.generate(ids, max_new_tokens=40)
    follow_up = [*ids, *answer, *ids_of(2, 10)]

    done = lm.prefill(follow_up)

    assert done.num_reused == (count + 39) // 16 * 16  # the last token said was never computed
    assert wrong_blocks(lm, follow_up) == (len(follow_up) // 16, [])


def test_follow_ups_of_a_batch_hit_beyond_their_prompts(tiny, open_lm):
    lm = open_lm(tiny(), host=64)
    prompts = [ids_of(1, 8), ids_of(2, 30), ids_of(3, 17)]

    answers = lm.generate(prompts, max_new_tokens=40)

    for ids, answer in zip(prompts, answers, strict=True):
        assert wrong_blocks(lm, ids + answer) == ((len(ids) + 39) // 16, [])


def test_in_chunks_what_was_decoded_is_not_saved(tiny, open_lm):
    lm = open_lm(tiny(), chunk_tokens=16, host=32)
    ids = ids_of(1, 20)

    answer = lm.generate(ids, max_new_tokens=40)

    assert lm.store.match(ids + answer).num_blocks == 1


# Whatever generate can do

OPTIONS = {
    "sampling": {"do_sample": True, "top_k": 20, "temperature": 0.9},
    "beams": {"num_beams": 2},
    "sampled-beams": {"num_beams": 3, "do_sample": True},
    "repetition-penalty": {"repetition_penalty": 1.3},
    "one-token": {"max_new_tokens": 1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_generate_says_what_transformers_says_alone(tiny, open_lm, options):
    model = tiny()
    lm = open_lm(model, host=32)
    ids = ids_of(1, 40)
    options = {"max_new_tokens": 20, **options}
    torch.manual_seed(5)
    expected = alone(model, ids, **options)

    for _ in range(2):  # a miss, then a hit
        torch.manual_seed(5)
        assert [lm.generate(ids, **options)] == expected


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_however_generated_no_wrong_block_is_stored(tiny, open_lm, options):
    lm = open_lm(tiny(), host=64)
    ids = ids_of(1, 40)

    answer = lm.generate(ids, **{"max_new_tokens": 20, **options})

    assert wrong_blocks(lm, ids + answer)[1] == []


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": True}], ids=["beams", "sampling"])
def test_several_answers_to_one_prompt(tiny, open_lm, options):
    model = tiny()
    lm = open_lm(model, host=32)
    ids = ids_of(1, 40)
    options = {"max_new_tokens": 6, "num_return_sequences": 2, **options}
    torch.manual_seed(5)
    expected = alone(model, ids, **options)

    torch.manual_seed(5)

    assert lm.generate(ids, **options) == expected


def test_a_batch_of_beams_says_what_its_prompts_say_alone(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=32)
    prompts = [ids_of(1, 40), ids_of(2, 23)]

    said = lm.generate(prompts, max_new_tokens=8, num_beams=2)

    assert said == [alone(model, ids, max_new_tokens=8, num_beams=2)[0] for ids in prompts]


def test_each_answer_of_a_batch_is_cut_after_its_end(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=32)
    prompts = [ids_of(1, 40), ids_of(2, 23)]
    whole = lm.generate(prompts, max_new_tokens=12)
    end = whole[1][2]

    said = lm.generate(prompts, max_new_tokens=12, eos_token_id=end)

    assert said == [row[: row.index(end) + 1] if end in row else row for row in whole]


def test_the_models_own_end_of_sequence_is_heeded(tiny, open_lm):
    ids = ids_of(1, 40)
    end = CachedLM(tiny(), None).generate(ids, max_new_tokens=12)[4]
    model = copy.deepcopy(tiny())
    model.generation_config.eos_token_id = [end]

    said = open_lm(model, host=32).generate(ids, max_new_tokens=12)

    assert (said[-1], end in said[:-1]) == (end, False)


# The cache as transformers handles it


def test_a_cropped_cache_goes_on_like_an_ordinary_one(tiny, open_lm):
    model = tiny()
    ids = ids_of(1, 40)
    ours = open_lm(model, host=8).prefill(ids, max_new_tokens=10).past_key_values
    theirs = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), past_key_values=theirs)

        for cache in (ours, theirs):
            cache.crop(-5)
        got, expected = (
            model(input_ids=torch.tensor([[9, 8, 7]]), past_key_values=cache).logits for cache in (ours, theirs)
        )

    assert ours.get_seq_length() == 38
    assert torch.equal(got, expected)


def test_a_copied_cache_goes_its_own_way(tiny, open_lm):
    model = tiny()
    done = open_lm(model, host=8).prefill(ids_of(1, 40), max_new_tokens=10)
    one = done.past_key_values
    other = copy.deepcopy(one)
    third = copy.deepcopy(one)

    with torch.no_grad():
        for token in (5, 6):
            model(input_ids=torch.tensor([[token]]), past_key_values=one)
        got = [model(input_ids=torch.tensor([[token]]), past_key_values=other).logits for token in (7, 8)]
        expected = [model(input_ids=torch.tensor([[token]]), past_key_values=third).logits for token in (7, 8)]

    assert [layer.in_place for layer in other.layers] == [True, True]
    assert all(map(torch.equal, got, expected))
    assert (one.get_seq_length(), other.get_seq_length()) == (42, 42)


def test_two_prefills_of_one_prompt_do_not_share_a_buffer(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=8)
    ids = ids_of(1, 40)
    one, other = lm.prefill(ids, max_new_tokens=4), lm.prefill(ids, max_new_tokens=4)
    before = other.past_key_values.layers[0].keys.clone()

    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=one.past_key_values)

    assert torch.equal(other.past_key_values.layers[0].keys, before)


def test_a_cache_outgrowing_its_buffer_says_so(tiny, open_lm):
    model = tiny()
    done = open_lm(model, host=8).prefill(ids_of(1, 40))  # three blocks: room for eight more

    with torch.no_grad():
        model(input_ids=torch.tensor([[5] * 8]), past_key_values=done.past_key_values)
        within = done.past_key_values.layers[0].in_place
        model(input_ids=torch.tensor([[5]]), past_key_values=done.past_key_values)

    assert (within, done.past_key_values.layers[0].in_place) == (True, False)


# Many callers


def test_two_models_may_share_a_store_from_several_threads(tiny, open_lm):
    model = tiny()
    lm = open_lm(model, host=12)
    prompts = [ids_of(seed % 3, 20 + seed) for seed in range(9)]
    expected = [alone(model, ids, max_new_tokens=4)[0] for ids in prompts]
    said = {}

    def work(number):
        mine = CachedLM(model, lm.store)
        for i in range(number, len(prompts), 3):
            said[i] = mine.generate(prompts[i], max_new_tokens=4)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [said[i] for i in range(len(prompts))] == expected


# The real model


@pytest.mark.model
def test_real_a_conversation_goes_on_where_it_ended(smollm2, tmp_path):
    model, tokenizer = smollm2
    ids = prompt_ids(tokenizer, 70, seed=5)
    lm = CachedLM.open(model, tmp_path, host="64 MiB", disk="64 MiB")
    answer = lm.generate(ids, max_new_tokens=30)
    follow_up = [*ids, *answer, *tokenizer.encode(" And then?", add_special_tokens=False)]
    lm.close()
    lm = CachedLM.open(model, tmp_path, host="64 MiB", disk="64 MiB")

    done = lm.prefill(follow_up)
    said = lm.generate(follow_up, max_new_tokens=8)
    lm.close()

    assert done.num_reused == 96
    assert [said] == alone(model, follow_up, max_new_tokens=8)


@pytest.mark.model
def test_real_a_batch_says_what_its_prompts_say_alone(smollm2):
    model, tokenizer = smollm2
    prompts = [prompt_ids(tokenizer, count, seed=count) for count in (100, 41, 1)]
    lm = CachedLM.open(model, None, host="64 MiB", disk=0)

    said = lm.generate(prompts, max_new_tokens=8)
    lm.close()

    assert said == [alone(model, ids, max_new_tokens=8)[0] for ids in prompts]


def test_a_store_is_opened_for_the_models_device(tiny, monkeypatch):
    asked = {}

    def spy(*args, **options):
        asked.update(options)
        return open_store(*args, **options)

    monkeypatch.setattr("kvtier.integrations.transformers.open_store", spy)

    CachedLM.open(tiny(), None, host="1 MiB", disk=0).close()

    assert asked["on"] == tiny().device
