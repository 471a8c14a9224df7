"""The rating words of a language model: how likely "1" to "5" come next, and the rating that this says to expect.

Only these words' rows of the output embedding are ever multiplied, and only each text's last state, never a whole
vocabulary at every token. Apart from the learners because soft prompts and in-context learning read ratings alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

import torch
from torch import Tensor
from torch.nn.functional import linear

from fewrec.data.table import Scale
from fewrec.errors import DataError
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.packing import Layout, pack

WORDS = ("1", "2", "3", "4", "5")
TEMPLATE = "{text} Rating from {low} to {high}:"
_PLACEHOLDERS = {"text", "low", "high"}
_CONTEXT = "A quiet river."
_CHECK = ("The first of two texts.", "The second, which is the longer one.")


class RatingWords:
    """The rating words of a decoder's or an encoder-decoder's vocabulary.

    ``words`` stand, from the first to the last, for ratings spread evenly from ``scale.low`` to ``scale.high``:
    ``values`` (W,) float64, ``ids`` (W,) their tokens. ``template`` makes the query of an item's text, with {text} and,
    for the first and the last word, {low} and {high}. A word follows it after a blank, or at once where the template
    ends in white space. GPT-2 and T5 have the blank in the word's token; SmolLM2 and others that read digits one by one
    have it as a token of its own, which then ends the query.

    Raises ``DataError`` where the model has no language-model head, a word is not one token or two words are the same,
    and where the whole model's logits are others than those computed here.
    """

    def __init__(
        self, backbone: Backbone, scale: Scale, words: Sequence[str] = WORDS, *, template: str = TEMPLATE
    ) -> None:
        if backbone.whole is None:
            raise DataError(f"backbone {backbone.name}: an encoder has no language-model head; use readout 'head'")
        if len(words) < 2:
            raise DataError(f"rating words {tuple(words)}: give at least two, for the lowest and the highest rating")
        if problem := template_problem(template):
            raise DataError(problem)
        self.backbone, self.scale, self.words, self.template = backbone, scale, tuple(words), template
        self._end, ids = self._tokens_of_words()
        self.ids = torch.tensor(ids)
        self.values = torch.linspace(scale.low, scale.high, len(words), dtype=torch.float64)
        self.before, self.after = self._special_tokens()
        self._factor = 1.0
        config = backbone.whole.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)  # of Gemma 2 and its kin
        self._check()

    def text(self, item_text: str) -> str:
        """Return the query of an item's text; the word comes right after it."""
        return self.template.format(text=item_text, low=self.words[0], high=self.words[-1]) + self._end

    def prompts(self, texts: Sequence[str], max_length: int) -> list[str]:
        """Return the query of each item text; the text is cut where all of it would be more than ``max_length`` tokens.

        Special tokens that the model expects count. Raises ``DataError`` where the template alone has more.
        """
        return self._fitting(texts, max_length)[0]

    def tokenise(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Return the token ids of ``prompts``, without special tokens (``before`` and ``after`` are those)."""
        return self._fitting(texts, max_length)[1]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts as they are, without special tokens."""
        return self.backbone.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def nearest(self, rating: Tensor) -> Tensor:
        """Return the number of the word nearest to each rating (n,), the lower of two at the same distance."""
        return (rating.double().unsqueeze(1) - self.values).abs().argmin(1)

    def logits(self, states: Tensor, layout: Layout) -> Tensor:
        """Return the words' logits (G, U, W) after each text; differentiable. Where there is no text they mean nothing.

        ``states`` (B, T, d): what the trunk gives, after its final norm, for texts laid out by ``layout``, on one
        device with it. Behind an encoder, the decoder reads its start token, and the states of the text, of its own
        prompt and of what all texts of the row see.
        """
        if self.backbone.kind == "decoder":
            last = states[layout.row, (layout.start + layout.length - 1).clamp_min(0)]
        else:
            last = self._decoded(states, layout)
        with torch.autocast(states.device.type, enabled=False):  # few numbers, and an exponential is taken of them
            weight, bias = self._rows()
            dtype = torch.promote_types(last.dtype, torch.float32)
            bias = None if bias is None else bias.to(last.device, dtype)
            found = linear(last.to(dtype), weight.to(last.device, dtype), bias) * self._factor
        return found if self._cap is None else (found / self._cap).tanh() * self._cap

    def expectation(self, logits: Tensor) -> Tensor:
        """Return the expected rating (...) on the data set's scale, for logits (..., W)."""
        chances = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        return (chances * self.values.to(chances.device, chances.dtype)).sum(-1)

    def _rows(self) -> tuple[Tensor, Tensor | None]:
        head, whole = self.backbone.whole.get_output_embeddings(), self.backbone.whole
        ids = self.ids.to(head.weight.device)
        bias = None if getattr(head, "bias", None) is None else head.bias[ids]
        extra = getattr(whole, "final_logits_bias", None)  # of BART and its kin
        if extra is not None:
            bias = extra[0, ids] if bias is None else bias + extra[0, ids]
        return head.weight[ids], bias

    def _decoded(self, states: Tensor, layout: Layout) -> Tensor:
        """Return the decoder's state (G, U, d) at its start token, each text as a row with the states that it sees."""
        segment = layout.segment[layout.row]  # (G, U, T)
        own = segment.gather(2, layout.start.clamp_max(layout.width - 1).unsqueeze(2))
        seen = ((segment == own) | (segment == 0)) & (layout.length > 0).unsqueeze(2)
        seen = seen.flatten(0, 1)
        seen[:, 0] |= ~seen.any(1)  # where there is no text: attention to nothing is not a number
        places = int(seen.sum(1).max())
        order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)[:, :places]
        read = states[layout.row.reshape(-1, 1), order]
        start = torch.full((len(read), 1), self._start_token, device=states.device)
        out = self.backbone.whole.get_decoder()(
            input_ids=start,
            encoder_hidden_states=read,
            encoder_attention_mask=seen.gather(1, order).long(),
            use_cache=False,
        )
        return out.last_hidden_state[:, 0].unflatten(0, layout.length.shape)

    @property
    def _start_token(self) -> int:
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            if (token := getattr(self.backbone.whole.config, name, None)) is not None:
                return int(token)
        raise DataError(f"backbone {self.backbone.name}: its config.json has no decoder_start_token_id")

    def _tokens_of_words(self) -> tuple[str, list[int]]:
        """Return what ends the query, "" or a blank, and each word's token after it."""
        if self.backbone.kind == "encoder-decoder":
            options = [("", "", "")]  # the word begins what the decoder writes
        else:
            query = self.template.format(text=_CONTEXT, low=self.words[0], high=self.words[-1])
            options = [(query, "", "")] if query[-1:].isspace() else [(query, "", " "), (query, " ", "")]
        tokens: list[list[int]] = []
        for query, end, blank in options:
            known, *longer = self.plain([query + end, *(query + end + blank + word for word in self.words)])
            tokens = [row[len(known) :] if row[: len(known)] == known else row for row in longer]
            if all(len(row) == 1 for row in tokens):
                break
        name, unknown = self.backbone.name, self.backbone.tokenizer.unk_token_id
        for word, row in zip(self.words, tokens, strict=True):
            if len(row) != 1 or row[0] == unknown:
                what = "unknown to" if unknown in row else f"{len(row)} tokens for"
                raise DataError(
                    f"backbone {name}: the rating word '{word}' is {what} its tokenizer; give words that are "
                    "one token, such as digits or short common words"
                )
        ids = [row[0] for row in tokens]
        for i, word in enumerate(self.words):
            if ids[i] in ids[:i]:
                other = self.words[ids.index(ids[i])]
                raise DataError(
                    f"backbone {name}: the rating words '{other}' and '{word}' are the same token; give other words"
                )
        return end, ids

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        whole = self.backbone.tokenizer(_CONTEXT)["input_ids"]
        (bare,) = self.plain([_CONTEXT])
        for i in range(len(whole) - len(bare) + 1):
            if whole[i : i + len(bare)] == bare:
                return whole[:i], whole[i + len(bare) :]
        raise DataError(f"backbone {self.backbone.name}: its tokenizer puts special tokens inside of a text")

    def _fitting(self, texts: Sequence[str], max_length: int) -> tuple[list[str], list[list[int]]]:
        room = max_length - len(self.before) - len(self.after)
        (empty,) = self.plain([self.text("")])
        if len(empty) > room:
            raise DataError(f"max_length = {max_length}: the template alone is {len(empty)} tokens; give more")
        cut = list(texts)
        prompts = [self.text(text) for text in cut]
        ids = self.plain(prompts) if prompts else []
        while too_long := [i for i, row in enumerate(ids) if len(row) > room and cut[i]]:
            for i in too_long:
                kept = max(room - len(empty), 0) / max(len(ids[i]) - len(empty), 1)
                cut[i] = cut[i][: min(int(len(cut[i]) * kept), len(cut[i]) - 1)].rstrip()
                prompts[i] = self.text(cut[i])
            for i, row in zip(too_long, self.plain([prompts[i] for i in too_long]), strict=True):
                ids[i] = row
        return prompts, ids

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the logits after two texts in one row with the whole model's after each; raise where they differ."""
        backbone, device = self.backbone, self.backbone.device
        context, *texts = self.plain([_CONTEXT, *(self.text(text) for text in _CHECK)])
        context = self.before + context if backbone.kind == "decoder" else []
        if not context:
            texts = [self.before + row + self.after for row in texts]
        try:
            layout = pack(torch.tensor([[len(row) for row in texts]]), capacity=256, shared=len(context)).to(device)
            ids = layout.fill(texts)
            if context:
                ids[:, : len(context)] = torch.tensor(context, device=device)
            found = self.logits(backbone.encode(layout, ids), layout)[0]
            wanted = torch.stack([self._of_whole(context + row) for row in texts])
            if self._cap is None:  # some models multiply all logits by a number of theirs
                factor = float((wanted * found).sum() / found.square().sum())
                self._factor = 1.0 if abs(factor - 1) < 1e-4 else factor
            if not torch.allclose(found * self._factor, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
                raise ValueError("the words' logits, computed alone, are others than the model's")
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            kind = backbone.whole.config.model_type
            raise DataError(
                f"backbone {backbone.name}: fewrec can't read rating words from a '{kind}' ({error})"
            ) from error

    def _of_whole(self, ids: list[int]) -> Tensor:
        given = {"input_ids": torch.tensor([ids], device=self.backbone.device)}
        if self.backbone.kind == "encoder-decoder":
            given["decoder_input_ids"] = torch.full_like(given["input_ids"][:, :1], self._start_token)
        return self.backbone.whole(**given).logits[0, -1, self.ids.to(self.backbone.device)]


def template_problem(template: str) -> str | None:
    """Return in one line why a query template can't be used, or None."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        return f"template {template!r}: {error}"
    if "text" not in names:
        return f"template {template!r}: {{text}}, for an item's text, is missing"
    if names - _PLACEHOLDERS:
        return f"template {template!r}: {{{min(names - _PLACEHOLDERS)}}} is none of {{text}}, {{low}}, {{high}}"
    return None
