"""Do the tests notice? Plausible bugs, put into a copy of the project one at a time: each must make a test fail.

`python tests/mutation_check.py [WORDS]` runs them all, or those whose description has one of the words, and prints a
table; exit code 1 when a bug survives. A few minutes; pytest does not collect it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/helpers"))

from tiny_project import copy_of_the_project  # noqa: E402

TIMEOUT_S = 300
PASSED, FAILED = 0, 1
"""pytest's exit codes for these; all others (nothing collected, an import that breaks) prove nothing."""


class Mutant(NamedTuple):
    """A bug: in `file`, `old` (which occurs once) becomes `new`; `tests` are the files that should notice."""

    bug: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "a step reports the peak memory of the process that started it",
        "textvae/provenance.py",
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if found is None else int(found[1])",
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
        "textvae/test_provenance.py",
    ),
    # --- remedies
    Mutant(
        "the multiplier of a minimum rate falls below 0",
        "textvae/objectives/mdr_vae.py",
        "* missing).clamp_min_(0)",
        "* missing)",
        "textvae/test_remedies.py",
    ),
    Mutant(
        "the multiplier of a minimum rate descends",
        "textvae/objectives/mdr_vae.py",
        "self.config.rate - taken.losses.kl.double()",
        "taken.losses.kl.double() - self.config.rate",
        "textvae/test_remedies.py",
    ),
    Mutant(
        "the autoencoder's decoder stays after the pretraining",
        "textvae/objectives/pretrained_vae.py",
        "self.network.decoder.load_state_dict(fresh.state_dict())",
        "fresh.state_dict()",
        "textvae/test_remedies.py",
    ),
    Mutant(
        "a sample on the sphere is not turned with its direction",
        "textvae/posteriors.py",
        "F.normalize(around - (around * direction).sum(-1, keepdim=True) * direction, dim=-1)",
        "F.normalize(around, dim=-1)",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "a direction from float32 keeps its length's error",
        "textvae/posteriors.py",
        "direction=F.normalize(self.direction.detach().double(), dim=-1)",
        "direction=self.direction.detach().double()",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "the density on a sphere is not normalised",
        "textvae/posteriors.py",
        "return self.kappa * cosine - vmf.log_mean_exp(self.dimensions, self.kappa)",
        "return self.kappa * cosine",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "the variances of a coordinate along and across the direction are exchanged",
        "textvae/posteriors.py",
        "(along * share + across * (1 - share))",
        "(across * share + along * (1 - share))",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "the angle's density lacks the size of the sphere's circles",
        "textvae/von_mises_fisher.py",
        "torch.full_like(theta, dimensions - 2)",
        "torch.full_like(theta, dimensions - 1)",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "the nearer tail of the angle is taken for the other",
        "textvae/von_mises_fisher.py",
        "torch.where(t > 0, small, large)",
        "torch.where(t < 0, small, large)",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "codes from the prior are beside the sphere",
        "textvae/generation.py",
        "network.family.projected(philox.normals(seed, CODES, numbers_N, network.latent))",
        "philox.normals(seed, CODES, numbers_N, network.latent)",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "given codes are decoded beside the sphere",
        "textvae/latent.py",
        "z_ND = network.family.projected(z_ND)",
        "z_ND = z_ND * 1",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "an objective for a Gaussian's KL is trained with another posterior",
        "textvae/training.py",
        "        objective.check_model(settings.model)\n",
        "",
        "textvae/test_posteriors.py",
    ),
    Mutant(
        "a committed rate is that of a variance, not of the largest one",
        "textvae/networks.py",
        "log_var_BD = self.most_log_var - F.softplus(log_var_BD)",
        "log_var_BD = self.most_log_var + log_var_BD",
        "textvae/test_remedies.py",
    ),
    Mutant(
        "batch norm goes by the batch in evaluation, too",
        "textvae/networks.py",
        "of_batch = self.training and len(mu_BD) > 1",
        "of_batch = len(mu_BD) > 1",
        "textvae/test_remedies.py",
    ),
    Mutant(
        "the states that the code must predict learn to be predicted",
        "textvae/objectives/z_forcing.py",
        "backward_BTH.detach(), batch.target_mask_BT",
        "backward_BTH, batch.target_mask_BT",
        "textvae/test_z_forcing.py",
    ),
    Mutant(
        "the backward states are one word late",
        "textvae/objectives/z_forcing.py",
        "batch.lengths_B[:, None] - 2 - positions_T",
        "batch.lengths_B[:, None] - 3 - positions_T",
        "textvae/test_z_forcing.py",
    ),
    Mutant(
        "padding is predicted, too",
        "textvae/objectives/z_forcing.py",
        "(nats_BT * mask_BT).sum()",
        "nats_BT.sum()",
        "textvae/test_z_forcing.py",
    ),
    Mutant(
        "the backward language model is clipped with the others",
        "textvae/objectives/z_forcing.py",
        'return super().groups() | {"backward": {"backward": list(self.backward.parameters())}}',
        'return {"main": super().groups()["main"] | {"backward": list(self.backward.parameters())}}',
        "textvae/test_z_forcing.py",
    ),
    Mutant(
        "the language model that is to read backwards reads forwards",
        "textvae/objectives/z_forcing.py",
        "torch.where(is_word_BT, last_B1 - positions_T, positions_T)",
        "positions_T.expand_as(batch.tokens_BT)",
        "textvae/test_z_forcing.py",
    ),
    Mutant(
        "the table of remedies keeps the older run of a seed",
        "tools/remedies.py",
        'found[row["system"], row["seed"]] = row',
        'found.setdefault((row["system"], row["seed"]), row)',
        "test_remedies_page.py",
    ),
    Mutant(
        "the table of remedies takes the seeds' spread for their mean",
        "tools/remedies.py",
        "number(summary.mean, decimals)}{spread}",
        "number(summary.spread or 0.0, decimals)}{spread}",
        "test_remedies_page.py",
    ),
    Mutant(
        "the decoder's gradient lacks what goes by way of the SVI steps",
        "textvae/svi.py",
        "vector[1] + products[1], *products[2:]",
        "vector[1] + products[1], *(0 * product for product in products[2:])",
        "textvae/test_sa_vae.py",
    ),
    Mutant(
        "the encoder's gradient takes the SVI steps for constants",
        "textvae/svi.py",
        "vector[0] + products[0], vector[1] + products[1]",
        "vector[0], vector[1]",
        "textvae/test_sa_vae.py",
    ),
    Mutant(
        "an SVI step drops out as training does",
        "textvae/svi.py",
        "twin.dropout = 0.0",
        "twin.generator = decoder.generator",
        "textvae/test_sa_vae.py",
    ),
    Mutant(
        "an SVI step is on the batch's mean",
        "textvae/svi.py",
        "return torch.autograd.grad(loss, ",
        "return torch.autograd.grad(loss / len(mu_BD), ",
        "textvae/test_sa_vae.py",
    ),
    Mutant(
        "the SVI steps of training have the whole KL",
        "textvae/objectives/base.py",
        "self.svi_noise(batch), self.beta)",
        "self.svi_noise(batch))",
        "textvae/test_sa_vae.py",
    ),
    # --- what a GPU notices later
    Mutant(
        "the last value that is not finite is remembered, not the first",
        "textvae/divergence.py",
        "first = broken & (self.found == 0)",
        "first = broken",
        "textvae/test_divergence.py",
    ),
    Mutant(
        "a step that diverged changes the weights where it is asked about later",
        "textvae/objectives/base.py",
        "optimizer.found_inf = self.divergence.found  # type: ignore[attr-defined]",
        "pass",
        "textvae/test_divergence.py",
    ),
    Mutant(
        "a divergence that was noticed later has the step at which it was asked about",
        "textvae/training.py",
        "if error.step is None else error.step + 1",
        "",
        "textvae/test_divergence.py",
    ),
    Mutant(
        "a full disk leaves the lock of an output behind",
        "textvae/outputs.py",
        """            try:
                sign(lock)
""",
        """            sign(lock)
            try:
""",
        "textvae/test_outputs.py",
    ),
    # --- the paper's grid, and the benchmark of a GPU
    Mutant(
        "a model of a training that is not over does not say so",
        "components/train.py",
        'about |= {"unfinished": unfinished} if unfinished else {}',
        "about |= {}",
        "pipelines/test_paper.py",
    ),
    Mutant(
        "a model is replaced, what was measured of the one before it stays",
        "pipelines/machine/paper_runs.py",
        'for name in ("model", "curves.jsonl", "evaluation", "samples.parquet", "ngram.json", "timings"):',
        'for name in ("model", "curves.jsonl"):',
        "pipelines/test_paper.py",
    ),
    Mutant(
        "the table of the benchmark calls a target reached that was set against another commit, by the eager path",
        "benchmarks/gpu/table.py",
        "None if times is None or ratio is None or baseline is None else ratio >= times",
        "None if times is None or ratio is None else ratio >= times",
        "test_gpu_benchmark.py",
    ),
    Mutant(
        "the table of the benchmarks calls a target reached that is exceeded",
        "benchmarks/timing.py",
        "ratio <= self.target if self.costs",
        "ratio >= self.target if self.costs",
        "test_benchmarks.py",
    ),
    # --- trainings side by side
    Mutant(
        "a training takes all its steps before the next one begins",
        "textvae/side_by_side.py",
        "turns.append((key, task, next(task)))",
        "turns.appendleft((key, task, next(task)))",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "a training takes its turn while the device still works on its last step",
        "textvae/side_by_side.py",
        "if working is not None and not working.query():",
        "if working is not None and working.query():",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "more trainings share the device than are to",
        "textvae/side_by_side.py",
        "islice(waiting, at_once - len(turns))",
        "islice(waiting, at_once)",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "a training that fails takes the others with it",
        "textvae/side_by_side.py",
        """        except Exception as error:
            yield key, error
""",
        """        except ZeroDivisionError as error:
            yield key, error
""",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "told to stop, trainings that have not begun begin",
        "textvae/side_by_side.py",
        """            if stop.reason() is not None:
                return
""",
        "",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "side by side, two processes do the same training",
        "textvae/side_by_side.py",
        "        with store.locked(training.name):\n",
        "        if store:\n",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "a training that has ended keeps its memory while others go on",
        "textvae/side_by_side.py",
        "            gc.collect()",
        "            pass",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "a training that is over is done again",
        "textvae/side_by_side.py",
        "return found[0] if store.take_outcome(take) else None",
        "return None",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "the code of a run depends on what is trained beside it",
        "textvae/side_by_side.py",
        """imported_by("components.train") | imported_by(""",
        """dict.fromkeys(sys.modules, "") | imported_by(""",
        "textvae/test_side_by_side.py",
    ),
    Mutant(
        "a pod for several runs asks for the memory of one",
        "pipelines/cluster/resources.py",
        "more = (self.runs_per_gpu - 1) * in_bytes",
        "more = 0 * in_bytes",
        "pipelines/test_kubeflow.py",
    ),
    # --- what is read
    Mutant(
        "a damaged file of a model or a corpus is read, its hash or not",
        "textvae/integrity.py",
        "if found != files[path.name]:",
        "if not files[path.name]:",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "a number in a JSON file may have lost a bit",
        "textvae/integrity.py",
        "if stated is not None and stated != fingerprint(content):",
        "if stated == fingerprint([]):",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "a carriage return inside a line joins two sentences",
        "textvae/lines.py",
        'if "\\r" in text:',
        'if "\\r\\r" in text:',
        "components/test_fetch.py",
    ),
    Mutant(
        "what only Unicode calls a space is none beside a sentence marker",
        "textcorpus/sentence_markers.py",
        "if line[right:end].strip(WHITE_SPACE):",
        "if line[right:end].strip():",
        "textcorpus/test_sentence_markers.py",
    ),
    Mutant(
        "a block of text ends in the middle of a line",
        "textcorpus/blocks.py",
        "            text += stream.readline()\n",
        "",
        "components/test_preprocess.py",
    ),
    Mutant(
        "copies of the sentence at the limit are drawn anew in every block of text",
        "textcorpus/encoded_corpus.py",
        "                copies -= int((at_limit_N & wanted_N).sum())\n",
        "",
        "components/test_preprocess.py",
    ),
    Mutant(
        "words unknown in the text already count as out of vocabulary",
        "textcorpus/encoded_corpus.py",
        "words = [*vocabulary.words, *UNKNOWN_FORMS]",
        "words = [*vocabulary.words]",
        "components/test_preprocess.py",
    ),
    Mutant(
        "a row group takes one sentence more than reach its tokens",
        "textcorpus/encoded_corpus.py",
        "np.searchsorted(tokens_N, ROW_GROUP_TOKENS)) + 1",
        "np.searchsorted(tokens_N, ROW_GROUP_TOKENS)) + 2",
        "components/test_preprocess.py",
    ),
    Mutant(
        "a served model's requirements lack a package that the library imports",
        "tracking/registry.py",
        ', "ruamel.yaml", "rich")',
        ', "rich")',
        "tracking/test_registry.py",
    ),
    Mutant(
        "half a character in a JSON file reaches what writes one",
        "textvae/files.py",
        "        refuse_lone_surrogates(value)\n",
        "",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "an error that quotes a library is several lines",
        "textvae/errors.py",
        'return LINE_ENDS.sub(" ", str(error)), error.exit_code',
        "return str(error), error.exit_code",
        "textvae/test_errors.py",
    ),
    Mutant(
        "a damaged file of samples is read, its hash or not",
        "textvae/sealed_parquet.py",
        "if place < 0 or stated != expected:",
        "if place < 0:",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "any corpus of the name will do for a model",
        "textvae/corpus_folder.py",
        "if sha256 != self.sha256:",
        "if sha256 is None:",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "weights that are not finite are opened",
        "textvae/checkpoint.py",
        "if not all(torch.isfinite(end) for end in tensor.aminmax()):",
        "if not tensor.aminmax():",
        "textvae/test_integrity.py",
    ),
    Mutant(
        "the checksum of a state leaves its tensors' values out",
        "textvae/checkpoint.py",
        "digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)",
        "digest.update(b'')",
        "textvae/test_state.py",
    ),
    Mutant(
        "a training that starts anew keeps a part of the state that it could not take",
        "textvae/training.py",
        "self.restore(fresh)  #",
        "self.restore(self.state())  #",
        "textvae/test_state.py",
    ),
    # --- what is reported
    Mutant(
        "q(z) lacks the sentence's own component",
        "textvae/estimators.py",
        "log_q_S=torch.logaddexp(log_others_S, log_q_own_S) - math.log(count)",
        "log_q_S=log_others_S - math.log(count)",
        "textvae/test_estimators.py",
    ),
    Mutant(
        "NLL-IW sums over the samples instead of averaging",
        "textvae/estimators.py",
        "return math.log(log_weight_NK.shape[1]) - torch.logsumexp(log_weight_NK, 1)",
        "return -torch.logsumexp(log_weight_NK, 1)",
        "textvae/test_estimators.py",
    ),
    Mutant(
        "an active unit is one with a standard deviation of 0.01",
        "textvae/estimators.py",
        ".double().var(0, correction=1)",
        ".double().std(0, correction=1)",
        "textvae/test_estimators.py",
    ),
    Mutant(
        "gain leaves the own code out of the mean",
        "textvae/estimators.py",
        "torch.logsumexp(log_p_x_NK, 1) + math.log(log_p_x_NK.shape[1])",
        "torch.logsumexp(log_p_x_NK[:, 1:], 1) + math.log(log_p_x_NK.shape[1] - 1)",
        "textvae/test_estimators.py",
    ),
    Mutant(
        "the KL takes log sigma^2 for log sigma",
        "textvae/posteriors.py",
        "(torch.expm1(self.log_var) - self.log_var)",
        "(torch.expm1(2 * self.log_var) - 2 * self.log_var)",
        "textvae/test_estimators.py",
    ),
    # --- the networks
    Mutant(
        "EOS is not counted",
        "textvae/decoders.py",
        "mask_BT = batch.target_mask_BT",
        "mask_BT = batch.target_mask_BT & (batch.targets_BT != FIRST_TARGET)",
        "textvae/test_networks.py",
    ),
    Mutant(
        "the posterior is read off the last position, padding or not",
        "textvae/networks.py",
        "(batch.lengths_B - 1)[:, None, None]",
        "torch.full_like(batch.lengths_B, states_BTH.shape[1] - 1)[:, None, None]",
        "textvae/test_networks.py",
    ),
    Mutant(
        "z is mu + sigma^2 noise",
        "textvae/posteriors.py",
        "torch.exp(0.5 * self.log_var)",
        "torch.exp(self.log_var)",
        "textvae/test_networks.py",
    ),
    Mutant(
        "dropout is active in evaluation",
        "textvae/decoders.py",
        "return dropout(value, self.dropout, self.generator) if self.training else value",
        "return dropout(value, self.dropout, self.generator)",
        "textvae/test_networks.py",
    ),
    Mutant(
        "the decoder reads z at the first word only",
        "textvae/decoders.py",
        "z_BTD = z_BD[:, None].expand(-1, inputs_BT.shape[1], -1)",
        "z_BTD = nn.functional.pad(z_BD[:, None], (0, 0, 0, inputs_BT.shape[1] - 1))",
        "textvae/test_networks.py",
    ),
    Mutant(
        "a dilated convolution reads the next word",
        "textvae/decoders.py",
        "padded_BSC = F.pad(narrowed_BTC, (0, 0, 2 * self.dilation, 0))",
        "padded_BSC = F.pad(narrowed_BTC, (0, 0, 2 * self.dilation - 1, 1))",
        "textvae/test_dilated_vae.py",
    ),
    Mutant(
        "the middle tap of a dilated convolution is the last word",
        "textvae/decoders.py",
        "padded_BSC[:, self.dilation : self.dilation + length], narrowed_BTC",
        "padded_BSC[:, 2 * self.dilation - 1 : 2 * self.dilation - 1 + length], narrowed_BTC",
        "textvae/test_dilated_vae.py",
    ),
    Mutant(
        "word by word a dilated convolution reads one position too far back",
        "textvae/decoders.py",
        "past_BSC[:, self.dilation], narrowed_BC",
        "past_BSC[:, self.dilation - 1], narrowed_BC",
        "textvae/test_dilated_vae.py",
    ),
    Mutant(
        "word by word dilated convolutions do not know the code",
        "textvae/decoders.py",
        "states_BH = self.words[words_B] + z_part",
        "states_BH = self.words[words_B] + 0 * z_part",
        "textvae/test_dilated_vae.py",
    ),
    Mutant(
        "a block of dilated convolutions is no residual one",
        "textvae/decoders.py",
        "return x_BTH + self.widen(dropped(convolved_BTC))",
        "return self.widen(dropped(convolved_BTC))",
        "textvae/test_dilated_vae.py",
    ),
    Mutant(
        "a dilation may be longer than every sentence",
        "textvae/step_settings.py",
        "furthest = max(self.dilations)",
        "furthest = min(self.dilations)",
        "textvae/test_dilated_vae.py",
    ),
    # --- the objectives
    Mutant(
        "word dropout drops BOS",
        "textvae/objectives/vae_05.py",
        " & (inputs_BT != BOS)",
        "",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "the KL that is shown is the weighted one",
        "textvae/objectives/vae_05.py",
        "code.kl, reconstruction, code.kl)",
        "code.kl, reconstruction, self.kl_weight(step) * code.kl)",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "annealing counts epochs, not steps",
        "textvae/objectives/base.py",
        "(end - start) * done / steps",
        "(end - start) * (done // self.steps_per_epoch * self.steps_per_epoch) / steps",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "a beta-VAE never settles at its own weight",
        "textvae/objectives/base.py",
        "return end if done >= steps",
        "return 1.0 if done >= steps",
        "textvae/test_variants.py",
    ),
    Mutant(
        "beta never waits for the energy",
        "textvae/objectives/vae_mine.py",
        "self._first_step = self.scalar(self.config.hold_steps)",
        "self._first_step = self.scalar(0)",
        "textvae/test_robustness.py",
    ),
    Mutant(
        "beta waits to the end of the hold, whatever the energy hears",
        "textvae/objectives/vae_mine.py",
        "rises = held & (average > RISEN)",
        "rises = held & (average > 100 * RISEN)",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "a hold that has ended is forgotten by a resume",
        "textvae/objectives/vae_mine.py",
        'self._first_step.fill_(state["first_step"])',
        "pass",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "mine_bow's head stays untrained",
        "textvae/objectives/mine_bow.py",
        'return self.heads["bow"].parameters()',
        "return ()",
        "textvae/test_mine_bow.py",
    ),
    Mutant(
        "BOW counts EOS",
        "textvae/objectives/vae_bow.py",
        "batch.target_mask_BT & (batch.targets_BT != EOS)",
        "batch.target_mask_BT",
        "textvae/test_systems.py",
    ),
    Mutant(
        "the MMD counts the diagonals (biased)",
        "textvae/objectives/infovae.py",
        "return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))",
        "return k.mean()",
        "textvae/test_systems.py",
    ),
    Mutant(
        "the MMD's weight is l, not a + l - 1",
        "textvae/objectives/infovae.py",
        "self.config.mi_weight + self.config.mmd_weight - 1",
        "self.config.mmd_weight",
        "textvae/test_systems.py",
    ),
    Mutant(
        "free bits: the threshold comes before the mean",
        "textvae/objectives/free_bits.py",
        "kl_BD.mean(0).clamp_min(threshold).sum()",
        "kl_BD.clamp_min(threshold).mean(0).sum()",
        "textvae/test_variants.py",
    ),
    Mutant(
        "weights are selected when the next step, not the last one, is at beta = 1",
        "textvae/objectives/cyclical.py",
        "self.kl_weight(max(step - 1, 0)) == 1.0",
        "self.kl_weight(step) == 1.0",
        "textvae/test_systems.py",
    ),
    Mutant(
        "the inner loop stays on the current batch",
        "textvae/objectives/lagging.py",
        "                batch = self.draw()\n",
        "",
        "textvae/test_systems.py",
    ),
    Mutant(
        "a window's loss is per sentence",
        "textvae/objectives/lagging.py",
        "words += batch.target_tokens",
        "words += len(batch)",
        "textvae/test_systems.py",
    ),
    Mutant(
        "the inner loop trains the decoder too",
        "textvae/objectives/lagging.py",
        "with frozen(self.network.decoder):",
        "if True:",
        "textvae/test_systems.py",
    ),
    Mutant(
        "a window as good as the one before ends the inner loop",
        "textvae/objectives/lagging.py",
        "if mean > before:",
        "if mean >= before:",
        "textvae/test_systems.py",
    ),
    Mutant(
        "the aggressive phase comes back",
        "textvae/objectives/lagging.py",
        "            self.aggressive = False\n",
        "            self.aggressive = False\n        else:\n            self.aggressive = self.config.aggressive\n",
        "textvae/test_systems.py",
    ),
    # --- VAE-MINE
    Mutant(
        "xi is inverted",
        "textvae/mutual_information.py",
        'return -log_z.detach() if kind == "reciprocal" else log_z.detach()',
        'return log_z.detach() if kind == "reciprocal" else -log_z.detach()',
        "textvae/test_mutual_information.py",
    ),
    Mutant(
        "xi gets a gradient",
        "textvae/mutual_information.py",
        "    log_xi = log_xi.detach()\n",
        "",
        "textvae/test_mutual_information.py",
    ),
    Mutant(
        "all_pairs counts the diagonal",
        "textvae/mutual_information.py",
        'if marginal == "all_pairs":',
        "if False:",
        "textvae/test_mutual_information.py",
    ),
    Mutant(
        "a shuffled sentence may keep its own code",
        "textvae/mutual_information.py",
        "if not (permutation_M == identity_M).any():",
        "if not (permutation_M == identity_M).all():",
        "textvae/test_mutual_information.py",
    ),
    Mutant(
        "alpha scales the energy's gradient too",
        "textvae/objectives/vae_mine.py",
        "        bound = self.bound(scaled_gradient(code.hidden_BH, alpha), scaled_gradient(code.z_BD, alpha))\n",
        "        bound = self.bound(code.hidden_BH, code.z_BD)\n"
        "        return Losses(total - alpha * bound, reconstruction, code.kl, {'mi_estimate': bound})\n",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "the encoder does not hear the energy through the hidden state",
        "textvae/objectives/vae_mine.py",
        "scaled_gradient(code.hidden_BH, alpha)",
        "code.hidden_BH.detach()",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "no gradient through the codes of the marginal pairs (eq. 18 misread)",
        "textvae/objectives/vae_mine.py",
        "self.energy.pairs(hidden_MH, z_MD[order_M])",
        "self.energy.pairs(hidden_MH, z_MD[order_M].detach())",
        "textvae/test_objectives.py",
    ),
    Mutant(
        "the xi of the batch before is this batch's",
        "textvae/objectives/vae_mine.py",
        "before if self.config.stale_xi else after",
        "after",
        "textvae/test_variants.py",
    ),
    Mutant(
        "a frozen energy is trained",
        "textvae/objectives/vae_mine.py",
        'energy = {"energy": {"energy": list(self.energy.parameters())}} if self.config.energy_trained else {}',
        'energy = {"energy": {"energy": list(self.energy.parameters())}}',
        "textvae/test_variants.py",
    ),
    Mutant(
        "the average of Z is lost when a training goes on",
        "textvae/objectives/vae_mine.py",
        'None if state["log_z"] is None else torch.tensor(float.fromhex(state["log_z"]), device=device)',
        "None",
        "textvae/test_objectives.py",
    ),
    # --- what is compared
    Mutant(
        "copies count as sentences of their own in a difference",
        "reporting/differences.py",
        "mean_and_se(difference_SN.mean(axis=0), kinds_N)",
        "mean_and_se(difference_SN.mean(axis=0), np.arange(len(kinds_N)))",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "a difference is taken of numbers of different sentences",
        "reporting/differences.py",
        "if first is not None and numbers.about.get(key) != first.about.get(key):",
        "if False:",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "the interval of a difference knows no other trainings",
        "reporting/differences.py",
        "return math.hypot(by_sentences, t_975(self.seeds - 1) * self.seed_se)",
        "return by_sentences",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "the interval of a difference knows no other sentences",
        "reporting/differences.py",
        "return math.hypot(by_sentences, t_975(self.seeds - 1) * self.seed_se)",
        "return t_975(self.seeds - 1) * self.seed_se",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "the seeds' part of a difference's error does not fall with their number",
        "reporting/differences.py",
        "self.seed_sd / math.sqrt(self.seeds)",
        "self.seed_sd",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "a difference turned round keeps its sign",
        "reporting/differences.py",
        "difference=-self.difference)",
        "difference=self.difference)",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "a difference to the baseline is one to LSTM-LM",
        "reporting/differences.py",
        'of_runs.get((system or "", run.seed))',
        "of_runs.get((LANGUAGE_MODEL, run.seed))",
        "reporting/test_report_differences.py",
    ),
    Mutant(
        "the verdict takes the lowest NLL-IW whether its difference is clear or not",
        "reporting/verdict.py",
        "if found is None or found.sign <= 0]",
        "if found is None]",
        "reporting/test_report_verdict.py",
    ),
    Mutant(
        "two numbers at their ceiling are ranked",
        "reporting/summary.py",
        "for system, summary in complete.items() if summary.bound}",
        "for system, summary in complete.items() if False}",
        "reporting/test_report_ceilings.py",
    ),
    Mutant(
        "the verdict ranks a gain at its ceiling below another",
        "reporting/verdict.py",
        " or gains[s].bound for s, found",
        " for s, found",
        "reporting/test_report_verdict.py",
    ),
    Mutant(
        "the ceiling of the MI is that of a batch",
        "reporting/ceilings.py",
        '"mi": lambda row: row.get("sentences"),',
        '"mi": lambda row: BATCH,',
        "reporting/test_report_ceilings.py",
    ),
    Mutant(
        "the codes of the gain are the most at once",
        "textvae/evaluation.py",
        "codes = min(4 * codes, most)",
        "codes = most",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the codes of the gain grow only at their ceiling",
        "textvae/evaluation.py",
        "<= GAIN_SHARE * math.log(codes)",
        "<= 0.999 * math.log(codes)",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "sentences.parquet has a subset's numbers at the first sentences",
        "textvae/evaluation.py",
        "values_N[torch.from_numpy(subset)] = values_S",
        "values_N[: len(values_S)] = values_S",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "sentences.parquet has the NLL as the reconstruction",
        "textvae/evaluation.py",
        '{"nll": nll_N, "reconstruction": reconstruction_N,',
        '{"nll": nll_N, "reconstruction": nll_N,',
        "textvae/test_evaluation.py",
    ),
    # --- training and evaluation
    Mutant(
        "validation weighs the KL with beta",
        "textvae/training.py",
        "        self.select(row)\n        self.objective.after_epoch(row)\n",
        '        row["valid_nll"] -= (1 - row.get("beta", 1)) * row.get("valid_kl", 0)\n'
        "        self.select(row)\n        self.objective.after_epoch(row)\n",
        "textvae/test_training.py",
    ),
    Mutant(
        "the NLL of a VAE is its reconstruction",
        "textvae/inference.py",
        "float((reconstruction_N + kl_N).mean())",
        "float(reconstruction_N.mean())",
        "textvae/test_training.py",
    ),
    Mutant(
        "dropout is active while a language model is validated",
        "textvae/inference.py",
        "    network.eval()\n    losses_N = ",
        "    losses_N = ",
        "textvae/test_training.py",
    ),
    Mutant(
        "all sentences are measured with the same noise",
        "textvae/corpus.py",
        "key=sentence_hash(tokens, seed, purpose, copy)",
        "key=sentence_hash(tokens[:0], seed, purpose, copy)",
        "textvae/test_corpus.py",
    ),
    Mutant(
        "equal sentences share one draw of noise",
        "textvae/corpus.py",
        'key = f"{seed}:{purpose}" + (f":{copy}" if copy else "")',
        'key = f"{seed}:{purpose}"',
        "textvae/test_repeated.py",
    ),
    Mutant(
        "a standard error counts copies as if they were said anew",
        "textvae/estimators.py",
        "error = max(error, correction * totals_G.norm().item() / len(values_N))",
        "pass",
        "textvae/test_repeated.py",
    ),
    Mutant(
        "an evaluation forms the gradient of the output layer",
        "textvae/softmax.py",
        "if torch.is_grad_enabled() and (",
        "if (",
        "textvae/test_softmax.py",
    ),
    Mutant(
        "every step takes fresh memory for its logits",
        "textvae/softmax.py",
        'getattr(_kept, "blocks", [])',
        "[]",
        "textvae/test_softmax.py",
    ),
    Mutant(
        "the logits of two threads are in one place",
        "textvae/softmax.py",
        "_kept = threading.local()",
        "_kept = threading.Event()",
        "textvae/test_softmax.py",
    ),
    Mutant(
        "the memory for logits is made in inference mode",
        "textvae/softmax.py",
        "with torch.inference_mode(False):",
        "with torch.no_grad():",
        "textvae/test_softmax.py",
    ),
    Mutant(
        "the memory for logits is of the type it first had",
        "textvae/softmax.py",
        "kept[0].dtype != rows_CH.dtype or ",
        "",
        "textvae/test_softmax.py",
    ),
    Mutant(
        "the learning rate decays while the schedule has not settled",
        "textvae/training.py",
        "if not self.objective.settled(self.at.step):",
        "if False:",
        "textvae/test_training.py",
    ),
    Mutant(
        "a training that goes on has fresh optimisers",
        "textvae/training.py",
        'optimizer.load_state_dict(of_this_device(state["optimizers"][name], optimizer))',
        "pass",
        "textvae/test_training.py",
    ),
    Mutant(
        "all steps of a run share one stream of noise",
        "textvae/training.py",
        "np.random.SeedSequence([seed, step + 1])",
        "np.random.SeedSequence([seed])",
        "textvae/test_training.py",
    ),
    Mutant(
        "the reported NLL weighs the KL",
        "textvae/evaluation.py",
        "nll_N = reconstruction_N + kl_N",
        "nll_N = reconstruction_N + 0.1 * kl_N",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the perplexity's tokens leave EOS out",
        "textvae/corpus.py",
        "return int(self.lengths.sum()) + len(self)",
        "return int(self.lengths.sum())",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the MI is measured at the posteriors' means",
        "textvae/evaluation.py",
        "mutual_information(network, sentences, posterior, z_ND)",
        "mutual_information(network, sentences, posterior, posterior.mean)",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the sentence's own code may be among the others of its gain",
        "textvae/evaluation.py",
        " if i != n]",
        "]",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "a sentence is reconstructed from another one's code",
        "textvae/inference.py",
        "z_ND[batch.indices].float().to(network.device)\n        losses_N",
        "z_ND[: len(batch)].float().to(network.device)\n        losses_N",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "a word's log-probability is given another sentence's code",
        "textvae/inference.py",
        "z_ND[batch.indices].float().to(network.device)\n        _, losses_BT",
        "z_ND[: len(batch)].float().to(network.device)\n        _, losses_BT",
        "textvae/test_latent.py",
    ),
    Mutant(
        "sentences that are read together are read with each other's codes",
        "textvae/inference.py",
        "z_RD = z_SKD.flatten(0, 1)",
        "z_RD = z_SKD.transpose(0, 1).flatten(0, 1)",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the NLL-IW of sentences that are read together is another one's",
        "textvae/inference.py",
        "nll_N[batch.indices] = ",
        "nll_N[sorted(batch.indices)] = ",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "the gain of sentences that are read together is another one's",
        "textvae/evaluation.py",
        "log_p_SK[batch.indices] = ",
        "log_p_SK[sorted(batch.indices)] = ",
        "textvae/test_evaluation.py",
    ),
    Mutant(
        "an evaluation multiplies as the training does",
        "textvae/inference.py",
        "@float32_precision(tf32=False)\ndef reconstruction_of_codes",
        "def reconstruction_of_codes",
        "textvae/test_evaluation.py",
    ),
    # --- generation
    Mutant(
        "a sample's log-probability is that at the sampling temperature",
        "textvae/generation.py",
        "F.cross_entropy(logits_BV, classes_B, reduction",
        "F.cross_entropy(logits_BV / (settings.temperature or 1), classes_B, reduction",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sample's log-probability leaves EOS out",
        "textvae/generation.py",
        "log_prob_B.double().masked_fill(ended_B",
        "(log_prob_B * (classes_B != 0)).double().masked_fill(ended_B",
        "textvae/test_generation.py",
    ),
    Mutant(
        "sentences that are still open take over the random numbers of those that ended",
        "textvae/generation.py",
        "numbers_N[rows_B], place_B",
        "numbers_N[: len(rows_B)], place_B",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sentence that ends right behind the last word allowed counts as cut",
        "textvae/generation.py",
        "log_prob_N.cpu().numpy(), rows_NP[:, limit] != EOS)",
        "log_prob_N.cpu().numpy(), said_NL.all(axis=1))",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sentence that has ended and not yet left goes on",
        "textvae/generation.py",
        "(classes_B + FIRST_TARGET).masked_fill(ended_B, EOS)",
        "classes_B + FIRST_TARGET",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sentence that has ended and not yet left is counted as it goes on",
        "textvae/generation.py",
        "masked_fill(ended_B | too_many_B, 0.0)",
        "masked_fill(too_many_B, 0.0)",
        "textvae/test_generation.py",
    ),
    Mutant(
        "sentences that come later begin where the others are",
        "textvae/generation.py",
        "begun(entered, entered + coming)",
        "begun(0, coming)",
        "textvae/test_generation.py",
    ),
    Mutant(
        "those that stay in the batch take over what belongs to those that leave",
        "textvae/generation.py",
        "state = tuple(of_B[left] for of_B in state)",
        "state = (open_B[left], *(of_B[: len(left)] for of_B in state[1:]))",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sentence's chances repeat themselves",
        "textvae/generation.py",
        "place_B // philox.WORDS",
        "0 * place_B",
        "textvae/test_generation.py",
    ),
    Mutant(
        "codes and chances share their random words",
        "textvae/generation.py",
        "CODES, CHANCES = range(2)",
        "CODES, CHANCES = 0, 0",
        "textvae/test_generation.py",
    ),
    Mutant(
        "random words go by the lower half of a seed",
        "textvae/philox.py",
        "(seed & LOW, seed >> 32)",
        "(seed & LOW, 0)",
        "textvae/test_philox.py",
    ),
    Mutant(
        "Philox has nine rounds",
        "textvae/philox.py",
        "ROUNDS = 10",
        "ROUNDS = 9",
        "textvae/test_philox.py",
    ),
    Mutant(
        "a draw falls into a block that has no chance",
        "textvae/generation.py",
        "block_B1 = torch.searchsorted(ends_BN, aim_B1, right=True)",
        "block_B1 = torch.searchsorted(ends_BN, aim_B1)",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a draw at the very end falls behind the last class that has a chance",
        "textvae/generation.py",
        "return torch.minimum(value, torch.nextafter(limit, torch.zeros_like(limit)))",
        "return torch.minimum(value, limit)",
        "textvae/test_generation.py",
    ),
    Mutant(
        "a sample's log-probability is of the chances that were scaled",
        "textvae/generation.py",
        "/ weights_BV.sum(dim=1)).log()",
        ").log()",
        "textvae/test_generation.py",
    ),
    Mutant(
        "the nucleus lacks the word that reaches its mass",
        "textvae/generation.py",
        "ordered.masked_fill(before >= top_p, 0.0)",
        "ordered.masked_fill((before + ordered >= top_p) & (before > 0), 0.0)",
        "textvae/test_generation.py",
    ),
    Mutant(
        "greedy decoding samples",
        "textvae/generation.py",
        "classes_B = logits_BV.argmax(dim=1)",
        "classes_B = torch.multinomial(torch.softmax(logits_BV, 1), 1)[:, 0]",
        "textvae/test_generation.py",
    ),
    # --- the language models
    Mutant(
        "text too short for the order has fallback discounts",
        "textvae/kenlm_lm.py",
        "if order < settings.order and estimated(order):",
        "if False:",
        "textvae/test_kenlm_lm.py",
    ),
    Mutant(
        "lmplz's complaint about an order stands for all lower ones",
        "textvae/kenlm_lm.py",
        "range(order - 1, LOWEST_ORDER - 1, -1)",
        "range(0)",
        "textvae/test_kenlm_lm.py",
    ),
    # --- the latent space
    Mutant(
        "words that the project printed are split once more",
        "textvae/latent.py",
        "if tokens else self.tokenizer",
        "if False else self.tokenizer",
        "textvae/test_latent.py",
    ),
    Mutant(
        "all samples of a posterior share their noise",
        "textvae/latent.py",
        '(samples, network.latent), "reconstruct")',
        '(1, network.latent), "reconstruct")',
        "textvae/test_latent.py",
    ),
    Mutant(
        "the mean's reconstruction is a sample's",
        "textvae/latent.py",
        "z_NKD[n, 1:] = posterior[n]",
        "z_NKD[n, :-1] = posterior[n]",
        "textvae/test_latent.py",
    ),
    Mutant(
        "an interpolation runs backwards",
        "textvae/latent.py",
        "(1 - t) * np.asarray(a_D) + t * np.asarray(b_D)",
        "t * np.asarray(a_D) + (1 - t) * np.asarray(b_D)",
        "textvae/test_latent.py",
    ),
    Mutant(
        "a sentence is its own neighbour",
        "textvae/latent.py",
        "if index != itself][:k]",
        "][:k]",
        "textvae/test_latent.py",
    ),
    Mutant(
        "a repeated sentence is its last occurrence",
        "textvae/latent.py",
        "first.setdefault(searched[number].tobytes(), number)",
        "first[searched[number].tobytes()] = number",
        "textvae/test_latent.py",
    ),
    Mutant(
        "neighbours are counted from each chunk's start",
        "textvae/nearest.py",
        "        start += len(chunk_CD)\n",
        "",
        "textvae/test_latent.py",
    ),
    Mutant(
        "neighbours are those of the largest product",
        "textvae/nearest.py",
        "queries_QD @ normalised(chunk_CD).T",
        "queries_QD @ chunk_CD.T",
        "textvae/test_latent.py",
    ),
    Mutant(
        "a score leaves EOS out",
        "textvae/inference.py",
        "(-losses_T[: length - 1]).tolist()",
        "(-losses_T[: length - 2]).tolist()",
        "textvae/test_latent.py",
    ),
    Mutant(
        "examples are the first sentences of the file",
        "components/examples.py",
        'order = hashed_order(test, f"examples {settings.seed}")',
        "order = np.arange(len(test))",
        "components/test_examples.py",
    ),
    Mutant(
        "examples come from the training set",
        "components/examples.py",
        "choose(trained, test, settings)",
        "choose(trained, train, settings)",
        "components/test_examples.py",
    ),
    Mutant(
        "a line's number is that of the chunk",
        "textvae/given_text.py",
        "        number += 1\n",
        "        number = 1\n",
        "textvae/test_explore.py",
    ),
    Mutant(
        "c0 is tanh(W z) as well",
        "textvae/decoders.py",
        "return torch.tanh(c0_BH), c0_BH",
        "return torch.tanh(c0_BH), torch.tanh(c0_BH)",
        "textvae/test_networks.py",
    ),
    # --- what is chosen
    Mutant(
        "alpha is chosen by MI alone",
        "textvae/selection.py",
        "if difference <= se]",
        "if difference <= 1e9]",
        "textvae/test_selection.py",
    ),
    Mutant(
        "alpha is chosen by NLL-IW alone",
        "textvae/selection.py",
        "return max(eligible, key=lambda i: mi[i]), differences",
        "return min(range(len(mi)), key=lambda i: differences[i][0]), differences",
        "textvae/test_selection.py",
    ),
    Mutant(
        "the standard error of alpha's choice is not paired",
        "textvae/selection.py",
        "differences = [estimators.mean_and_se(nll_S - best_S, kinds_S) for nll_S in nll_iw]",
        "differences = [(float((n - best_S).mean()), estimators.mean_and_se(n)[1]) for n in nll_iw]",
        "textvae/test_selection.py",
    ),
    Mutant(
        "what a step imports late does not make it run again",
        "textvae/provenance.py",
        "        nodes += ast.iter_child_nodes(node)\n",
        "        nodes += ast.iter_child_nodes(node) if isinstance(node, ast.Module) else []\n",
        "textvae/test_provenance.py",
    ),
    Mutant(
        "the sweep is judged on the test set",
        "components/evaluate.py",
        "data.sentences(split)",
        'data.sentences("test")',
        "pipelines/test_sweep.py",
    ),
    # --- what a machine, another process or somebody else does
    Mutant(
        "a SIGTERM to make repro is passed on, and not waited for",
        "pipelines/machine/repro.py",
        "            except KeyboardInterrupt as error:\n                interrupted = error\n",
        "            except KeyboardInterrupt:\n                raise\n",
        "pipelines/test_stopping.py",
    ),
    Mutant(
        "a SIGTERM to make repro reaches dvc only",
        "pipelines/machine/stopping.py",
        "!= pid and not is_dvc(pid)",
        "!= pid and is_dvc(pid)",
        "pipelines/test_stopping.py",
    ),
    Mutant(
        "a SIGTERM to make ends its shell alone",
        "Makefile",
        "@exec python -m pipelines.machine.repro --jobs $(JOBS) --runs-per-gpu $(RUNS_PER_GPU) --results",
        "@python -m pipelines.machine.repro --jobs $(JOBS) --runs-per-gpu $(RUNS_PER_GPU) --results; exit $$?",
        "pipelines/test_stopping.py",
    ),
    Mutant(
        "a dvc.lock that a full disk has cut off ends each later make repro",
        "pipelines/machine/stages.py",
        "        except DvcException:\n            found.append(lockfile)\n",
        "        except DvcException:\n            pass\n",
        "pipelines/test_stages.py",
    ),
    Mutant(
        "a program without standard error prints into the first file that it opens",
        "textvae/console.py",
        "            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free\n",
        "",
        "textvae/test_console.py",
    ),
    Mutant(
        "MLflow's database of a folder with a question mark is made beside the folder",
        "tracking/place.py",
        'if "?" in path or unquote',
        "if unquote",
        "tracking/test_place.py",
    ),
    Mutant(
        "make repro removes what another make repro is writing",
        "pipelines/machine/repro.py",
        "if not ELSEWHERE.search(text)])",
        "])",
        "pipelines/test_status.py",
    ),
    Mutant(
        "a text may change while it is read",
        "textcorpus/raw_corpus.py",
        "        source.refuse_changed()\n",
        "",
        "components/test_fetch.py",
    ),
    Mutant(
        "a training goes on when who has called it was killed",
        "textvae/state.py",
        "if unread(ERRORS):",
        "if unread(ERRORS) and False:",
        "textvae/test_state.py",
    ),
    Mutant(
        "the time that is left forgets what the running ones have done",
        "pipelines/machine/outlook.py",
        "pace * seconds - running.get(one, 0.0)",
        "pace * seconds",
        "pipelines/test_outlook.py",
    ),
    Mutant(
        "what dvc has in its cache is measured before the runs, too",
        "pipelines/machine/repro.py",
        'if not found and name.partition("@")[2] not in cached]',
        "if not found]",
        "pipelines/test_outlook.py",
    ),
    Mutant(
        "two processes write one output at once",
        "textvae/outputs.py",
        "if not taken(lock):",
        "if not taken(lock) and not folder.is_dir():",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "the report takes the measures of another training of the run",
        "reporting/artifacts.py",
        "not in (None, fingerprint(config))",
        "in ()",
        "components/test_gather.py",
    ),
    Mutant(
        "a model directory appears before its learning curves",
        "textvae/outputs.py",
        "sorted(temporary.items(), key=lambda item: item[1].is_dir())",
        "temporary.items()",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "an optimiser goes on from lists instead of moments",
        "textvae/training.py",
        "            check_moments(optimizer)\n",
        "",
        "textvae/test_state.py",
    ),
    Mutant(
        "a lock that a killed process has left to its child ends whoever comes next",
        "textvae/locks.py",
        "if not is_gone(holder(lock)):",
        "if is_gone(holder(lock)) is not None:",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "the lock of an output counts though it was removed",
        "textvae/outputs.py",
        "if not same_file(lock.fileno(), folder / LOCK):",
        "if not lock.fileno():",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "what a killed writer has left of an output stays",
        "textvae/outputs.py",
        "                empty(folder)\n                yield folder",
        "                yield folder",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "a file takes the place of a folder that is an output",
        "textvae/outputs.py",
        "final.is_dir() != path.is_dir()",
        "final.is_dir() < path.is_dir()",
        "textvae/test_outputs.py",
    ),
    Mutant(
        "an output may not be written, and a traceback says so",
        "textvae/errors.py",
        "isinstance(error, OSError) and error.errno is not None",
        "isinstance(error, OSError) and error.errno in NO_SPACE",
        "textvae/test_errors.py",
    ),
    Mutant(
        "too little memory in PyTorch is taken for a bug",
        "textvae/errors.py",
        "isinstance(error, RuntimeError | OSError) and NO_MEMORY",
        "isinstance(error, OSError) and NO_MEMORY",
        "textvae/test_errors.py",
    ),
    Mutant(
        "what an interrupted making of MLflow's database leaves stays",
        "tracking/place.py",
        "    finally:\n        remove_database(making)",
        "    finally:\n        pass",
        "tracking/test_place.py",
    ),
    Mutant(
        "MLflow's database counts as made with its first table",
        "tracking/place.py",
        "    if tables and not made:",
        "    if not tables and made:",
        "tracking/test_place.py",
    ),
    Mutant(
        "a secret in the query of an address is shown",
        "textvae/addresses.py",
        '    return scheme + separator + place + "".join(query.partition("#")[1:])',
        '    return scheme + separator + place + "?" * bool(query) + query',
        "textvae/test_addresses.py",
    ),
    Mutant(
        "a secret is shown where a library says it",
        "textvae/addresses.py",
        "for secret in sorted(secrets(address), key=len, reverse=True):",
        "for secret in ():",
        "textvae/test_addresses.py",
    ),
    Mutant(
        "a link out of a result is followed where results are gathered",
        "components/gather.py",
        "            check_links(path)\n",
        "",
        "components/test_gather.py",
    ),
    Mutant(
        "a control character among the words reaches a figure",
        "reporting/svg.py",
        "return visible(text.rstrip())",
        "return text.rstrip()",
        "reporting/test_report_examples.py",
    ),
    Mutant(
        "a control character among the words reaches a table",
        "reporting/html.py",
        "visible(value) if type(value) is str else value",
        "value",
        "reporting/test_report_examples.py",
    ),
]


def python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in the project, which comes first on the path; no byte code that could outlive its source."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)


def run_tests(project: Path, *files: str) -> tuple[int, str]:
    """pytest's exit code, and the first test that failed (or what else it said)."""
    paths = [f"tests/{file}" for file in files]
    result = python(project, "-m", "pytest", "-x", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", *paths)
    failed = re.search(r"^FAILED tests/\S+?::(.+?)(?: - .*)?$", result.stdout, re.MULTILINE)
    return result.returncode, failed[1] if failed else result.stdout + result.stderr


def checked(mutants: list[Mutant]) -> None:
    """Stops at a replacement that does not apply."""
    for mutant in mutants:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            sys.exit(f"{mutant.bug}: {mutant.file} has {count} times, not once:\n{mutant.old}")
        missing = [file for file in mutant.tests.split() if not (ROOT / "tests" / file).is_file()]
        if missing:
            sys.exit(f"{mutant.bug}: no such test file: {', '.join(missing)}")


def killed_by(project: Path, mutant: Mutant) -> str | None:
    """The first test that fails under the bug, None when all pass."""
    source = project / mutant.file
    healthy = source.read_text(encoding="utf-8")
    source.write_text(healthy.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code, said = run_tests(project, *mutant.tests.split())
    finally:
        source.write_text(healthy, encoding="utf-8")
    if code not in (PASSED, FAILED):
        sys.exit(f"{mutant.bug}: pytest ended with {code}, which proves nothing:\n{said}")
    return said if code == FAILED else None


def main(words: list[str]) -> int:
    mutants = [mutant for mutant in MUTANTS if not words or any(word in mutant.bug for word in words)]
    if not mutants:
        sys.exit(f"no bug's description has any of: {' '.join(words)}")
    checked(mutants)
    started, survivors = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        copy_of_the_project(project)
        imported = python(project, "-c", "import textvae; print(textvae.__file__)").stdout.strip()
        if not Path(imported).is_relative_to(project.resolve()):
            sys.exit(f"the copy's tests would import {imported}")
        files = sorted({file for mutant in mutants for file in mutant.tests.split()})
        code, said = run_tests(project, *files)
        if code != PASSED:
            sys.exit(f"the tests fail without any bug: {said}")
        print(f"without a bug {', '.join(files)} pass\n\n| bug | noticed by |\n| --- | --- |", flush=True)
        for mutant in mutants:
            test = killed_by(project, mutant)
            survivors += test is None
            print(f"| {mutant.bug} | {'**survives**' if test is None else f'`{test}`'} |", flush=True)
    print(f"\n{len(mutants) - survivors} of {len(mutants)} noticed, {time.monotonic() - started:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
