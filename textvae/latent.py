"""The library's front door: a trained model's latent space, on sentences of one's own.

    from textvae import load
    model = load("runs/sotu/vae_mine/1/model")
    model.interpolate("We must act now.", "I thank the Congress.", steps=6)

Sentences are text, split by the model's own tokeniser, or `Sentences` (ids of the model's vocabulary). What comes back
as text is in the vocabulary's words, joined by spaces, `UNK` for all others: `tokens=True` takes such sentences, which
the tokeniser would split otherwise (`we 've`). No result depends on what else is asked for in the same call: noise is
keyed by the sentence and a seed, by default the model's own.

Shapes: N sentences, D latent, K samples or neighbours, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textvae import checkpoint, generation
from textvae.config import SamplingSettings, validated
from textvae.corpus import Sentences, hashed_normal
from textvae.errors import DataError, SettingsError
from textvae.inference import importance_weighted_nll, posteriors, word_log_probs
from textvae.nearest import FloatArray, nearest
from textvae.networks import Network
from textvae.progress import Progress
from textvae.tokenizer import Tokenizer
from textvae.vocabulary import EOS

Texts = Sequence[str] | Sentences

LONGEST_TEXT = 10_000
"""Characters; what is longer is no sentence, and the LSTM would read it word by word."""
CHUNK = 8192
"""Sentences of a corpus whose codes are in memory at a time."""


@dataclass(frozen=True)
class Generated:
    """A decoded sentence."""

    text: str
    log_prob: float
    """log p(x|z) in nats, EOS counted where it was reached."""


@dataclass(frozen=True)
class Reconstruction:
    """A sentence out of its own code, decoded greedily (Table 3 of the paper)."""

    source: str
    """The sentence as the model reads it."""
    mean: str
    """Decoded from the posterior's mean."""
    samples: list[str]
    """Decoded from samples of the posterior."""


@dataclass(frozen=True)
class Step:
    """One point of an interpolation."""

    t: float
    """0 at the first sentence's posterior mean, 1 at the second's."""
    text: str
    log_prob: float
    """log p(x|z) in nats of this text at this point."""


@dataclass(frozen=True)
class Neighbour:
    """A sentence of a corpus, near to a query."""

    text: str
    cosine: float
    """Of the two posterior means."""
    index: int
    """Its (first) position in the corpus."""


@dataclass(frozen=True)
class Score:
    """How probable a sentence is, word by word and as a whole."""

    words: list[str]
    """As the model reads them, and `EOS`."""
    log_probs: list[float]
    """log p(word | the words before, z) in nats at the posterior's mean; LSTM-LM: log p(word | the words before)."""
    nll_iw: float
    """An upper bound of -log p(x) in nats that falls with the number of samples (Burda et al. 2016); LSTM-LM: exact."""


@dataclass(frozen=True, repr=False)
class TextVAE(checkpoint.Model):
    """A trained model. A call raises DataError where the training diverged, and for LSTM-LM where it needs a code."""

    def encode(self, sentences: Texts, *, tokens: bool = False) -> tuple[FloatArray, FloatArray]:
        """mu and log sigma^2 of q(z|x) for every sentence: two float64 arrays (N, D).

        Of a posterior that is no Gaussian: its mean, and the logarithm of each coordinate's variance.
        """
        mu_ND, log_var_ND = posteriors(self._vae, self.tokenised(sentences, tokens)).moments()
        return mu_ND.numpy(), log_var_ND.numpy()

    def decode(self, codes_ND: npt.ArrayLike, max_length: int = 200) -> list[Generated]:
        """The sentence of each code, the most probable word at a time, cut at `max_length` words.

        Where all codes are on a sphere, those given count by their direction.
        """
        network = self._vae
        z_ND = torch.from_numpy(np.array(codes_ND, dtype=np.float64))
        if z_ND.ndim != 2 or z_ND.shape[1] != network.latent:
            raise SettingsError(f"codes have the shape {tuple(z_ND.shape)}; this model's is (N, {network.latent})")
        return self._decoded(network, z_ND, max_length)

    def reconstruct(
        self,
        sentences: Texts,
        samples: int = 0,
        seed: int | None = None,
        max_length: int = 200,
        *,
        tokens: bool = False,
    ) -> list[Reconstruction]:
        """Every sentence, decoded greedily from its posterior's mean and from `samples` samples of the posterior."""
        network, read = self._vae, self.tokenised(sentences, tokens)
        at_least(0, samples, "samples")
        posterior = posteriors(network, read)
        z_NKD = posterior.mean[:, None].repeat(1, 1 + samples, 1)
        for n in range(len(read)):
            noise_KD = hashed_normal(read[n], self._seed(seed), (samples, network.latent), "reconstruct")
            z_NKD[n, 1:] = posterior[n].sample(noise_KD)
        texts = iter([one.text for one in self._decoded(network, z_NKD.flatten(0, 1), max_length)])
        sources = [self.vocabulary.decode(read[n]) for n in range(len(read))]
        return [Reconstruction(source, next(texts), list(islice(texts, samples))) for source in sources]

    def sample(
        self,
        n: int,
        seed: int | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        max_length: int = 200,
    ) -> list[Generated]:
        """`n` sentences from the prior; temperature 0 is greedy. The first ones do not change with `n`."""
        asked = {"sentences": n, "temperature": temperature, "top_k": top_k, "top_p": top_p, "max_length": max_length}
        settings = validated(SamplingSettings, asked, "sample")
        batches = generation.prior_samples(self._network, settings, self._seed(seed))
        return [Generated(self.vocabulary.decode(one.tokens), one.log_prob) for batch in batches for one in batch]

    def interpolate(self, a: str, b: str, steps: int = 6, max_length: int = 200, *, tokens: bool = False) -> list[Step]:
        """`steps` sentences, greedily decoded, on the line between two posterior means, both ends among them."""
        mu_ND = posteriors(self._vae, self.tokenised([a, b], tokens)).mean
        return self.between(mu_ND[0], mu_ND[1], steps, max_length)

    def between(self, a_D: npt.ArrayLike, b_D: npt.ArrayLike, steps: int = 6, max_length: int = 200) -> list[Step]:
        """The same between two codes."""
        at_least(2, steps, "steps (its ends)")
        ts = [step / (steps - 1) for step in range(steps)]
        decoded = self.decode([(1 - t) * np.asarray(a_D) + t * np.asarray(b_D) for t in ts], max_length)
        return [Step(t, one.text, one.log_prob) for t, one in zip(ts, decoded, strict=True)]

    def neighbours(
        self, queries: Texts, corpus: Texts, k: int = 3, bar: Progress | None = None, *, tokens: bool = False
    ) -> list[list[Neighbour]]:
        """For each query, the `k` sentences of `corpus` whose posterior means have the largest cosine with its own.

        Exact, in float64, most similar first. A sentence that is the query, word by word, is left out, and one that the
        corpus repeats counts once (Table 6 of the paper). `bar` counts the corpus, repetitions included.
        """
        network, read, searched = self._vae, self.tokenised(queries, tokens), self.tokenised(corpus, tokens)
        at_least(1, k, "neighbours (k)")
        first: dict[bytes, int] = {}
        for number in range(len(searched)):
            first.setdefault(searched[number].tobytes(), number)
        distinct = np.fromiter(first.values(), np.int64)

        def means() -> Iterator[FloatArray]:
            passed = 0
            for start in range(0, len(distinct), CHUNK):
                yield posteriors(network, searched.subset(distinct[start : start + CHUNK])).mean.numpy()
                if bar is not None:  # repeated sentences count where they stand: the corpus is passed to its end
                    end = start + CHUNK
                    position = int(distinct[end]) if end < len(distinct) else len(searched)
                    bar.advance(position - passed)
                    passed = position

        rows_QK, cosines_QK = nearest(posteriors(network, read).mean.numpy(), means(), k + 1)
        found = []
        for query in range(len(read)):
            itself = first.get(read[query].tobytes())
            near = zip(distinct[rows_QK[query]].tolist(), cosines_QK[query].tolist(), strict=True)
            others = [(index, cosine) for index, cosine in near if index != itself][:k]
            found.append([Neighbour(self.vocabulary.decode(searched[i]), cosine, i) for i, cosine in others])
        return found

    def score(
        self, sentences: Texts, samples: int = 100, seed: int | None = None, *, tokens: bool = False
    ) -> list[Score]:
        """log-probabilities word by word, and NLL-IW with `samples` samples, of every sentence."""
        network, read = self._network, self.tokenised(sentences, tokens)
        at_least(1, samples, "samples")
        mu_ND = None if network.kind == "lstm_lm" else network.family.projected(posteriors(network, read).mean)
        log_probs = word_log_probs(network, read, mu_ND)
        if mu_ND is None:
            nll_iw = [-sum(one) for one in log_probs]
        else:
            nll_iw = importance_weighted_nll(network, read, samples, self._seed(seed)).tolist()
        words = [[self.vocabulary.decode([i]) for i in [*read[n], EOS]] for n in range(len(read))]
        return [Score(*parts) for parts in zip(words, log_probs, nll_iw, strict=True)]

    def tokenised(self, sentences: Texts, tokens: bool = False) -> Sentences:
        """Text as ids of the vocabulary, by the model's own tokeniser; `Sentences` stay what they are.

        `tokens`: the text is words between spaces, as everything here, samples.parquet, posterior.parquet and the
        report print it. It is split there and nowhere else, so that what the project made comes back as it was.
        Raises DataError for a text that is far too long to be a sentence.
        """
        if isinstance(sentences, Sentences):
            return sentences
        if isinstance(sentences, str):
            raise SettingsError("one text where a list of sentences is expected: write [text]")
        for number, text in enumerate(sentences, start=1):
            if len(text) > LONGEST_TEXT:
                raise DataError(
                    f"sentence {number} has {len(text):,} characters, more than {LONGEST_TEXT:,}: "
                    "split the text into sentences"
                )
        splitter = Tokenizer("spaces", self.vocabulary.tokenizer["lowercase"]) if tokens else self.tokenizer
        return Sentences.of([self.vocabulary.encode(words) for words in splitter.each(sentences)])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What split the model's corpus into words. Raises UnavailableError where it is spaCy, which is missing."""
        return Tokenizer.of(self.vocabulary.tokenizer)

    def __repr__(self) -> str:
        return f"<TextVAE {self.name}, {self.config['status']}, {len(self.vocabulary):,} words>"

    @property
    def name(self) -> str:
        """`sotu-vae_mine-1`."""
        return "-".join(str(self.config[key]) for key in ("dataset", "system", "seed"))

    @property
    def _network(self) -> Network:
        if self.network is None:
            raise DataError(f"{self.name} diverged ({self.config['failure']['message']}): it has no weights to use")
        return self.network

    @property
    def _vae(self) -> Network:
        if self.config["kind"] == "lstm_lm":
            raise DataError(f"{self.name} is LSTM-LM, which has no latent code: it can only `sample` and `score`")
        return self._network

    def _seed(self, seed: int | None) -> int:
        seed = int(self.config["seed"]) if seed is None else seed
        if not 0 <= seed < 2**64:
            raise SettingsError(f"seed {seed}: give one from 0 to 2**64 - 1")
        return seed

    def _decoded(self, network: Network, z_ND: Tensor, max_length: int) -> list[Generated]:
        at_least(1, max_length, "words at most (max_length)")
        greedy = SamplingSettings(temperature=0, max_length=max_length)
        z_ND = network.family.projected(z_ND)
        parts = torch.split(z_ND, generation.pace(network).batch)
        decoded = [one for part in parts for one in generation.generate(network, len(part), part, greedy)]
        return [Generated(self.vocabulary.decode(one.tokens), one.log_prob) for one in decoded]


def load(path: str | Path, weights: Literal["best", "iw"] = "best", device: str = "cpu") -> TextVAE:
    """Open a model directory for use.

    Args: path, as written by the train step; weights, by validation ELBO (`best`) or by NLL-IW (`iw`);
        device, `cpu`, `cuda` or `auto`.
    Raises: DataError where a file is missing, damaged, or of another format version.
    """
    model = checkpoint.load(path, weights, device)
    return TextVAE(model.config, model.vocabulary, model.network)


def at_least(least: int, value: int, name: str) -> None:
    """Raises SettingsError for a number that is too small."""
    if value < least:
        raise SettingsError(f"{value} {name}: give {least} or more")
