#!/usr/bin/env python3
"""Makes expected.json: what sacrebleu makes of some sentences.

    pip install sacrebleu       # what is here was made by 2.6.0
    python3 models/tests/bleu/make.py
"""

import json
import pathlib
import random

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

SENTENCES = [
    "A dog's toy, 1.5 m long.",
    "He said: \"No!\" (twice) - and left...",
    "1,000.50 people; 3-4 of them, x-ray, -5, 7-",
    "Prices: $5.99/kg & 50% off @ home_made [sic] {a|b} ~c `d` ^e #f *g +h =i <j> k\\l?",
    "a <unk> runs , a <unk>.",
    "&quot;Quoted&quot; &amp; &lt;b&gt;, &amp;lt; is no <",
    "Zwei Männer – „im Grünen“ – warten … Größe: 3,5m.",
    "end.",
    "...,,,.",
    ".5 and 5. and 5.a and a.5",
    "no-\nbreak and a\nline",
    "<skipped> words<skipped>",
    "tab\tspace\u00a0wide\u3000and\x1ccontrol\x1f ",
    "don't can't 'quoted' ''twice''",
    "٣.٤ are digits, but not these",
    "",
    "   ",
]

CORPORA = {
    "captions": [
        (
            "A small dog sees the red ball in the garden.",
            "The small dog sees a red ball in the garden.",
        ),
        (
            "Two young white men are outside near many bushes.",
            "Two young, White males are outside near many bushes.",
        ),
        (
            "A man is holding a guitar while the other man looks at his shirt.",
            "A man in green holds a guitar while the other man observes his shirt.",
        ),
        ("A girl climbs.", "A little girl climbing into a wooden playhouse."),
    ],
    "unknown words": [
        (
            "a <unk> in a <unk> shirt is standing on a <unk> .",
            "A man in a blue shirt is standing on a ladder.",
        ),
        ("two men in <unk> are at the <unk> <unk> .", "Two men are at the stove preparing food."),
    ],
    "marks": [
        ("He's 1.80 m tall, isn't he?", "He is 1.80 m tall, isn't he?"),
        ("\"Yes\", she said - \"no\"!", "\"Yes,\" she said – \"no!\""),
    ],
    "no run of four": [
        ("a dog in the park runs fast", "the dog in the garden runs away"),
        ("a man", "a man sings"),
    ],
    "nothing right": [("x y z w v", "a b c d e")],
    "short": [("a dog", "a dog")],
    "empty": [("", "a dog runs .")],
    "perfect": [("a dog runs in the park.", "a dog runs in the park.")],
}


def strange(seed):
    """Sentences of what is treated in some way, at random."""
    draw = random.Random(seed)
    parts = list("ab1 2 .,.,--'\"&;<>/[]{}~\t\n")
    parts += ["&amp;", "&quot;", "&lt;", "&gt;", "<skipped>", "é", "…"]
    return ["".join(draw.choices(parts, k=draw.randrange(1, 30))) for _ in range(150)]


def main():
    tokenizer, metric = Tokenizer13a(), BLEU()
    tokens = [
        {"sentence": sentence, "words": tokenizer(sentence.rstrip())}
        for sentence in SENTENCES + strange(1)
    ]
    scores = []
    for name, pairs in CORPORA.items():
        translations, references = (list(side) for side in zip(*pairs))
        score = metric.corpus_score(translations, [references])
        scores.append(
            {
                "name": name,
                "translations": translations,
                "references": references,
                "score": score.score,
                "precisions": score.precisions,
                "brevity_penalty": score.bp,
            }
        )
    signature = str(metric.get_signature())
    path = pathlib.Path(__file__).parent / "expected.json"
    expected = {"signature": signature, "tokens": tokens, "scores": scores}
    path.write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
