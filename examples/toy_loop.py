"""A chat loop whose prompts go through a store: run it twice, and the second run starts warm."""

import sys
import time

from transformers import AutoModelForCausalLM, AutoTokenizer

from kvtier.integrations.transformers import CachedLM

name = sys.argv[1]  # a directory or hub id of a Llama, Qwen, SmolLM2 or similar causal LM
model = AutoModelForCausalLM.from_pretrained(name).eval()
tokenizer = AutoTokenizer.from_pretrained(name)
lm = CachedLM.open(model, "kv-cache", host="1 GiB", disk="8 GiB")
messages = []
for question in sys.argv[2:]:
    messages.append({"role": "user", "content": question})
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    held, began = lm.store.match(ids).num_tokens, time.perf_counter()
    answer = tokenizer.decode(lm.generate(ids, max_new_tokens=32), skip_special_tokens=True)
    print(f"{answer!r}\n  {held} of {len(ids)} prompt tokens cached, {time.perf_counter() - began:.2f} s")
    messages.append({"role": "assistant", "content": answer})
print(lm.close())
