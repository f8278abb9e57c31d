"""A model of random weights in int8, as CTranslate2 reads it: its greedy texts turn on the last digits of the sums.

Made in a process of its own, without torch, in a second. `python wavering_model.py FOLDER`.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

VOCABULARY = 2048
EOS = 0
WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS = 64, 128, 12, 4, 2


def make_wavering_model(folder: Path) -> None:
    subprocess.run([sys.executable, __file__, str(folder)], check=True)


def main(folder: Path) -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]  # the converters take it if they can, and seconds with it
    import numpy
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    spec = TransformerDecoderModelSpec.from_config(
        LAYERS,
        HEADS,
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        num_heads_kv=KV_HEADS,
    )
    chance = numpy.random.default_rng(1)

    def weights(*shape: int) -> numpy.ndarray:
        return chance.normal(0, 0.2, shape).astype(numpy.float32)

    ones = numpy.ones(WIDTH, dtype=numpy.float32)
    decoder: Any = spec.decoder  # its parts are declared as None, to be filled
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weights(VOCABULARY, WIDTH)
    decoder.projection.weight = weights(VOCABULARY, WIDTH)
    decoder.layer_norm.gamma = ones
    for layer in decoder.layer:
        layer.self_attention.layer_norm.gamma = ones
        layer.self_attention.linear[0].weight = weights(WIDTH + 2 * KV_HEADS * WIDTH // HEADS, WIDTH)
        layer.self_attention.linear[1].weight = weights(WIDTH, WIDTH)
        layer.ffn.layer_norm.gamma = ones
        layer.ffn.linear_0.weight = weights(HIDDEN, WIDTH)
        layer.ffn.linear_0_noact.weight = weights(HIDDEN, WIDTH)
        layer.ffn.linear_1.weight = weights(WIDTH, HIDDEN)
    spec.register_vocabulary([f"token {number}" for number in range(VOCABULARY)])
    for name in ("unk_token", "bos_token", "eos_token"):
        setattr(spec.config, name, f"token {EOS}")
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True)
    spec.save(str(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
