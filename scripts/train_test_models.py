#!/usr/bin/env python3
"""Train the two test models anew: t5-date on generated dates, gpt2-kjv on a text file.

    scripts/train_test_models.py t5-date build/t5-date
    scripts/train_test_models.py gpt2-kjv build/gpt2-kjv --text king-james-bible.txt

`--steps 5` shows in seconds that it runs. Needs `pip install 'dockyard[transformers]'`.
"""

import argparse
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
# How an English date is written; lower case, days and months by name or by their first three letters.
FORMS = (
    "{day}, {month} {number}, {year}",
    "{month} {number}, {year}",
    "{number} {month} {year}",
    "{day}, {number} {month} {year}",
    "{mon} {number}, {year}",
    "{number} {mon} {year}",
    "{dow} {mon} {number} {year}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("t5-date", "gpt2-kjv"))
    parser.add_argument("folder", type=Path, help="where to write the model")
    parser.add_argument("--text", type=Path, help="gpt2-kjv: a text in the public domain, UTF-8")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, help="examples a step (default 64 dates, 16 pieces of text)")
    options = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    if options.model == "t5-date":
        train_t5_date(options.folder, options.steps, options.batch or 64)
    elif options.text:
        train_gpt2_kjv(options.folder, options.text.read_text("utf-8"), options.steps, options.batch or 16)
    else:
        parser.error("gpt2-kjv needs --text")


def train_t5_date(folder: Path, steps: int, batch_size: int) -> None:
    """Characters in, characters out; a loss on the ten characters of the ISO date and the end."""
    tokenizer = character_tokenizer()
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=tokenizer.vocab_size, d_model=96, d_kv=24, d_ff=384, num_layers=2, num_heads=4,
            relative_attention_max_distance=64, dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0,
            eos_token_id=1,
        )
    )  # fmt: skip
    model.generation_config.max_new_tokens = 26

    def batch() -> dict[str, torch.Tensor]:
        days = [random_day() for _ in range(batch_size)]
        inputs = tokenizer([f"date: {written(day)}" for day in days], padding=True, return_tensors="pt")
        labels = tokenizer([day.isoformat() for day in days], return_tensors="pt").input_ids
        return {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask, "labels": labels}

    train(model, batch, steps, rate=2e-3)
    save(model, tokenizer, folder)
    days = [random_day() for _ in range(200)]
    inputs = tokenizer([f"date: {written(day)}" for day in days], padding=True, return_tensors="pt")
    answers = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    exact = sum(answer.strip() == day.isoformat() for answer, day in zip(answers, days, strict=True))
    print(f"exact on {exact} of {len(days)} dates")


def character_tokenizer() -> PreTrainedTokenizerFast:
    letters = [*"',-./", *"0123456789", ":", *"abcdefghijklmnopqrstuvwxyz", "▁"]
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def random_day() -> date:
    return FIRST_DAY + timedelta(days=random.randrange((LAST_DAY - FIRST_DAY).days + 1))


def written(day: date) -> str:
    names = {"day": f"{day:%A}", "dow": f"{day:%a}", "month": f"{day:%B}", "mon": f"{day:%b}"}
    return random.choice(FORMS).format(number=day.day, year=day.year, **names).lower()


def train_gpt2_kjv(folder: Path, text: str, steps: int, batch_size: int) -> None:
    """A byte-level BPE vocabulary of 2048 made from the text, then next-token prediction on pieces of 256 tokens."""
    tokenizer = text_tokenizer(text)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=2048, n_positions=256, n_embd=192, n_layer=4, n_head=6, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    ids = torch.tensor(tokenizer.backend_tokenizer.encode(text).ids)
    length = min(256, len(ids) - 1)

    def batch() -> dict[str, torch.Tensor]:
        starts = [random.randrange(len(ids) - length) for _ in range(batch_size)]
        pieces = torch.stack([ids[start : start + length] for start in starts])
        return {"input_ids": pieces, "labels": pieces}

    train(model, batch, steps, rate=1e-3)
    save(model, tokenizer, folder)
    prompt = tokenizer(text[:40], return_tensors="pt")
    print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]))


def text_tokenizer(text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=256, bos_token=end, eos_token=end, unk_token=end
    )


def train(model: torch.nn.Module, batch: Callable[[], dict[str, torch.Tensor]], steps: int, rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train()
    for step in range(1, steps + 1):
        loss = model(**batch()).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)
    model.eval()


def save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"saved {sum(weights.numel() for weights in model.parameters())} parameters to {folder}")


if __name__ == "__main__":
    main()
