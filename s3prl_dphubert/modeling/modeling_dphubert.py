"""Classes that transformers' Auto classes open a checkpoint with.

:func:`~.single_file.modeling_file` joins this module and what it uses of ``model/`` into the one file that
is written beside the weights, which needs torch and transformers alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AudioClassificationPipeline,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput

from ..model.feature_extractor import FeatureExtractor
from ..model.masks import NO_MASKS
from ..model.speech_model import PADDED, Encoder, frame_lengths, initialise
from ..model.transformer import Attention, OutputBias, WeightNormConv


class DPHubertConfig(PretrainedConfig):
    """Shape of a dense or pruned encoder, and the settings of its fine-tuning.

    The shape is what ``config.json`` of s3prl-dphubert states: ``conv_channels``, ``embed_dim``, the ids of
    each layer's ``heads``, the width of each layer's ``ffn`` and so on.

    Args:
        vocab_size: outputs of :class:`DPHubertForCTC`, the blank included.
        pad_token_id: id of CTC's blank.
        ctc_loss_reduction: ``sum`` or ``mean``.
        ctc_zero_infinity: take infinite losses, of labels longer than the audio, as 0.
        final_dropout: dropout probability before the CTC head.
        mask_time_prob: share of frames that SpecAugment sets to 0 in training; 0 switches it off.
        mask_time_length: frames that are set to 0 together.
        mask_feature_prob: share of dimensions that SpecAugment sets to 0 in training.
        mask_feature_length: dimensions that are set to 0 together.
        use_weighted_layer_sum: classify the weighted sum of all hidden states rather than the last alone.
        classifier_proj_size: width of the projection before the mean over time.
        shape: fields of ``config.json``.
    """

    model_type = "dphubert"
    attribute_map = {"hidden_size": "embed_dim", "num_attention_heads": "total_heads"}  # noqa: RUF012

    def __init__(
        self,
        vocab_size=32,
        pad_token_id=0,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=False,
        final_dropout=0.0,
        mask_time_prob=0.0,
        mask_time_length=10,
        mask_feature_prob=0.0,
        mask_feature_length=10,
        use_weighted_layer_sum=False,
        classifier_proj_size=256,
        **shape,
    ):
        super().__init__(**shape)
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.final_dropout = final_dropout
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_feature_prob = mask_feature_prob
        self.mask_feature_length = mask_feature_length
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.classifier_proj_size = classifier_proj_size

    @property
    def num_layers(self) -> int:
        """Transformer layers L."""
        return len(self.heads)

    num_hidden_layers = num_layers

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame to the next."""
        return int(np.prod(self.conv_strides))


class DPHubertFeatureExtractor(Wav2Vec2FeatureExtractor):
    """Waveforms at 16 kHz, normalised as in the teacher's training, padded, with their attention mask.

    Args:
        do_normalize: scale each waveform to zero mean and unit variance.
        normalize_eps: added to the variance.
        return_attention_mask: return the mask that tells samples from padding.
        options: as for :class:`~transformers.Wav2Vec2FeatureExtractor`.
    """

    def __init__(self, do_normalize=False, normalize_eps=1e-7, return_attention_mask=True, **options):
        super().__init__(do_normalize=do_normalize, return_attention_mask=return_attention_mask, **options)
        self.normalize_eps = normalize_eps

    def zero_mean_unit_var_norm(self, input_values, attention_mask, padding_value=0.0):
        """Scale each of ``input_values`` (T,) by its samples that ``attention_mask`` (B, T) leaves."""
        normalised = []
        for index, values in enumerate(input_values):
            length = len(values) if attention_mask is None else int(np.sum(attention_mask[index]))
            samples = np.full(len(values), padding_value, np.float32)
            valid = np.asarray(values[:length], np.float64)
            samples[:length] = (valid - valid.mean()) / np.sqrt(valid.var() + self.normalize_eps)
            normalised.append(samples)
        return normalised


class DPHubertPreTrainedModel(PreTrainedModel):
    """Base of the models with and without heads."""

    config_class = DPHubertConfig
    base_model_prefix = "dphubert"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules = ["TransformerLayer"]  # noqa: RUF012

    def _init_weights(self, module):
        initialise(module)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Attention) and module.gated:  # a buffer that no checkpoint has
            module.head_ids.copy_(torch.tensor(module.heads))
        elif isinstance(module, DPHubertForSequenceClassification) and module.layer_weights is not None:
            nn.init.constant_(module.layer_weights, 1 / len(module.layer_weights))

    def freeze_feature_encoder(self):
        """Freeze the conv layers, as in most fine-tuning."""
        self.base_model.feature_extractor.requires_grad_(False)

    def freeze_base_model(self):
        """Freeze everything but the head."""
        self.base_model.requires_grad_(False)

    def _get_feat_extract_output_lengths(self, input_lengths):
        """Convert samples (B,) to frames (B,)."""
        config: Any = self.config
        return frame_lengths(config, torch.as_tensor(input_lengths))

    def _frames(self, attention_mask, logits):
        """Return the valid frames (B,) of logits (B, F, …)."""
        if attention_mask is None:
            return torch.full(logits.shape[:1], logits.shape[1], device=logits.device)
        return self._get_feat_extract_output_lengths(attention_mask.sum(-1))

    def _result(self, output, return_dict):
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()


class DPHubertModel(DPHubertPreTrainedModel):
    """Encoder without a head.

    ``hidden_states`` are the L + 1 tensors (B, F, D) of s3prl-dphubert: the feature projection's output, then
    each layer's. ``last_hidden_state`` is the last of them, in pre-norm models after the final LayerNorm.
    """

    def __init__(self, config):
        super().__init__(config)
        self.feature_extractor = FeatureExtractor(config)
        self.encoder = Encoder(config)
        transformer: Any = self.encoder.transformer
        _turn_into_buffers(self.feature_extractor)  # its scale
        for norm in (norm for layer in transformer.layers for norm in layer.idle_norms()):
            _turn_into_buffers(norm)
        positions = transformer.pos_conv_embed
        if isinstance(getattr(positions, "conv", None), WeightNormConv):
            positions.conv = _with_torchs_weight_norm(positions.conv)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        """Run the encoder.

        Args:
            input_values: (B, T) of :class:`DPHubertFeatureExtractor`, zero after each utterance's end.
            attention_mask: (B, T), 1 for samples and 0 for padding.
            output_attentions: return the attention weights (B, H, F, F) of each layer, where H may be 0. They
                are computed beside the fused attention, which does not return them.
            output_hidden_states: return the hidden states of all layers.
            return_dict: return :class:`~transformers.modeling_outputs.BaseModelOutput` rather than a tuple.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        x = self.encoder.feature_projection(self.feature_extractor(input_values))
        x = self._spec_augment(x)
        padding = None
        if attention_mask is not None:
            frames = self._frames(attention_mask, x)
            padded = torch.arange(x.shape[1], device=x.device) >= frames[:, None]
            x = x.masked_fill(padded[:, :, None], 0.0)
            padding = (padded[:, None, None, :] * PADDED).to(x.dtype)
        attentions: Any = [] if output_attentions else None
        states = self._run_layers(x, padding, attentions)
        last = states[-1]
        if self.config.layer_norm_first:
            last = self.encoder.transformer.layer_norm(last)
        hidden = tuple(states) if output_hidden_states else None
        weights = None if attentions is None else tuple(attentions)
        output = BaseModelOutput(last_hidden_state=last, hidden_states=hidden, attentions=weights)
        return self._result(output, return_dict)

    def _run_layers(self, x, padding, attentions):
        """Return x (B, F, D) and the output of each layer, and add the weights of each to ``attentions``."""
        transformer = self.encoder.transformer
        is_checkpointed = self.gradient_checkpointing and self.training
        states = [x]
        x, table = transformer.add_positions(x)
        if is_checkpointed and not x.requires_grad:
            x = x.requires_grad_()  # or reentrant checkpoints would stop the gradients of adapters
        for layer in transformer.layers:
            if attentions is not None:
                attentions.append(_attention_weights(layer, x, padding, table))
            if is_checkpointed:
                x = self._gradient_checkpointing_func(layer.__call__, x, padding, table, NO_MASKS)
            else:
                x = layer(x, padding, table, NO_MASKS)
            states.append(x)
        return states

    def _spec_augment(self, x):
        """Set spans of frames and of dimensions of x (B, F, D) to 0 in training (Park et al. 2019)."""
        config = self.config
        if not self.training:
            return x
        batch, frames, width = x.shape
        if config.mask_time_prob > 0:
            spans = _spans(batch, frames, config.mask_time_prob, config.mask_time_length, x.device)
            x = x.masked_fill(spans[:, :, None], 0.0)
        if config.mask_feature_prob > 0:
            spans = _spans(batch, width, config.mask_feature_prob, config.mask_feature_length, x.device)
            x = x.masked_fill(spans[:, None, :], 0.0)
        return x


def _attention_weights(layer, x, padding, table):
    """Return the attention weights (B, H, F, F) of a layer for its input x (B, F, D), before dropout."""
    attention = layer.attention
    if attention is None or isinstance(attention.out_proj, OutputBias):
        return x.new_zeros(len(x), 0, x.shape[1], x.shape[1])
    inner = layer.layer_norm(x) if layer.layer_norm_first else x
    shape = len(attention.heads), attention.head_dim
    q, k = (proj(inner).unflatten(-1, shape).transpose(1, 2) for proj in (attention.q_proj, attention.k_proj))
    scores = q @ k.transpose(-2, -1) * attention.head_dim**-0.5
    if attention.gated and table is not None:
        scores = scores + attention.position_bias(inner, table)
    if padding is not None:
        scores = scores + padding
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype)


def _turn_into_buffers(module: nn.Module) -> None:
    """Freeze a module's own parameters for good, which loading would unfreeze.

    They are fixed, or nothing reads them, and DistributedDataParallel would wait for their gradients.
    """
    for name, parameter in list(module.named_parameters(recurse=False)):
        delattr(module, name)
        module.register_buffer(name, parameter.data)


def _with_torchs_weight_norm(conv: WeightNormConv) -> nn.Module:
    """Return the same convolution with the parameter names that transformers gives all such weights."""
    width, _, kernel = conv.weight_v.shape
    same = nn.Conv1d(width, width, kernel, padding=conv.padding, groups=conv.groups)
    same.weight, same.bias = nn.Parameter(conv.weight_v.data), nn.Parameter(conv.bias.data)
    return nn.utils.parametrizations.weight_norm(same, dim=2)


def _spans(batch, size, share, length, device):
    """Draw spans that cover about a ``share`` of positions (batch, size), less where they overlap."""
    starts = torch.rand(batch, size, device=device) < share / length
    return F.max_pool1d(F.pad(starts.float(), (length - 1, 0)), length, stride=1).bool()


class DPHubertForCTC(DPHubertPreTrainedModel):
    """Encoder with a linear map to the symbols of connectionist temporal classification."""

    def __init__(self, config):
        super().__init__(config)
        self.dphubert = DPHubertModel(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.embed_dim, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        labels=None,
    ):
        """Return logits (B, F, vocab_size), and the CTC loss of ``labels`` (B, N), -100 for padding.

        Raises:
            ValueError: a label is not below ``vocab_size``.
        """
        if labels is not None and labels.max() >= self.config.vocab_size:
            raise ValueError(f"labels has {labels.max()}, allowed: below vocab_size {self.config.vocab_size}")
        outputs = self.dphubert(input_values, attention_mask, output_attentions, output_hidden_states, True)
        logits = self.lm_head(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else self._loss(logits, self._frames(attention_mask, logits), labels)
        output = CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return self._result(output, return_dict)

    def _loss(self, logits, frames, labels):
        is_label = labels >= 0
        with torch.backends.cudnn.flags(enabled=False):
            return F.ctc_loss(
                logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1),
                labels[is_label],
                frames,
                is_label.sum(-1),
                blank=self.config.pad_token_id,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )


class DPHubertForSequenceClassification(DPHubertPreTrainedModel):
    """Encoder, projection, mean over the valid frames and a linear map to the classes of an utterance."""

    def __init__(self, config):
        super().__init__(config)
        self.dphubert = DPHubertModel(config)
        self.layer_weights = None
        if config.use_weighted_layer_sum:
            layers = config.num_layers + 1
            self.layer_weights = nn.Parameter(torch.full((layers,), 1 / layers))
        self.projector = nn.Linear(config.embed_dim, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        labels=None,
    ):
        """Return logits (B, classes), and the loss of ``labels`` (B,): cross-entropy; MSE for one class."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        all_states = output_hidden_states or self.layer_weights is not None
        outputs = self.dphubert(input_values, attention_mask, output_attentions, all_states, True)
        x = outputs.last_hidden_state
        if self.layer_weights is not None:
            states = (*outputs.hidden_states[:-1], x)
            x = sum(w * state for w, state in zip(self.layer_weights.softmax(-1), states, strict=True))
        x = self.projector(x)
        valid = torch.arange(x.shape[1], device=x.device) < self._frames(attention_mask, x)[:, None]
        x = x.masked_fill(~valid[:, :, None], 0.0).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        logits = self.classifier(x)
        loss = None if labels is None else self._loss(logits, labels)
        hidden = outputs.hidden_states if output_hidden_states else None
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=hidden, attentions=outputs.attentions
        )
        return self._result(output, return_dict)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.num_labels == 1:
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)


class DPHubertFeatureExtractionPipeline(AudioClassificationPipeline):
    """``pipeline("feature-extraction")``: audio to the last hidden states (1, F, D), as lists or a tensor.

    Audio is what :class:`~transformers.AudioClassificationPipeline` takes: an array (T,), a file or bytes,
    which need ffmpeg, or ``{"array": …, "sampling_rate": …}``, which is resampled.
    """

    def check_model_type(self, supported_models):
        """Accept the model: the check is for classes of transformers itself."""

    def _sanitize_parameters(self, return_tensors=None, **options):
        return {}, {}, {} if return_tensors is None else {"return_tensors": return_tensors}

    def postprocess(self, model_outputs, return_tensors=False):
        """Return the last hidden states, as a tensor or as nested lists."""
        return model_outputs[0] if return_tensors else model_outputs[0].tolist()
