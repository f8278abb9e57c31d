"""Phi for CTranslate2, whose own loader knows the layout that Phi had before Transformers took it up."""

from typing import Any

from ctranslate2.converters import transformers as loaders
from ctranslate2.converters import utils
from ctranslate2.specs import TransformerDecoderModelSpec, common_spec


class PhiLoader(loaders.PhiLoader):
    """GPT-J's block: attention and MLP side by side behind one norm; a part of each head rotates."""

    @property
    def architecture_name(self) -> Any:
        return "PhiForCausalLM"

    def get_model_spec(self, model: Any) -> Any:
        config = model.config
        heads = config.num_attention_heads
        spec = TransformerDecoderModelSpec.from_config(
            num_layers=config.num_hidden_layers,
            num_heads=heads,
            pre_norm=True,
            rotary_dim=2 * len(model.model.rotary_emb.inv_freq),
            rotary_interleave=False,
            parallel_residual=True,
            shared_layer_norm=True,
            num_heads_kv=None if config.num_key_value_heads == heads else config.num_key_value_heads,
        )
        self.set_decoder(spec.decoder, model.model)
        self.set_linear(spec.decoder.projection, model.lm_head)
        return spec

    def set_decoder(self, spec: Any, module: Any) -> None:
        spec.scale_embeddings = False
        self.set_embeddings(spec.embeddings, module.embed_tokens)
        self.set_layer_norm(spec.layer_norm, module.final_layernorm)
        for layer_spec, layer in zip(spec.layer, module.layers, strict=True):
            self.set_layer_norm(layer_spec.shared_layer_norm, layer.input_layernorm)
            parts = [common_spec.LinearSpec() for _ in range(3)]
            projections = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            for part, projection in zip(parts, projections, strict=True):
                self.set_linear(part, projection)
            utils.fuse_linear(layer_spec.self_attention.linear[0], parts)
            self.set_linear(layer_spec.self_attention.linear[1], layer.self_attn.dense)
            self.set_linear(layer_spec.ffn.linear_0, layer.mlp.fc1)
            self.set_linear(layer_spec.ffn.linear_1, layer.mlp.fc2)
