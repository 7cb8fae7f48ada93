"""Train several runs on one corpus side by side, so that they share a GPU."""

import logging
import shutil
import traceback
from pathlib import Path
from typing import Annotated, Any

from components.step import LIGHTER, Input, Output, step
from textvae.config import TrainGroupSettings
from textvae.errors import StoppedError, TextVAEError, explanation
from textvae.progress import say
from textvae.side_by_side import Training, TrainingData, train_side_by_side, trainings_of
from textvae.state import stop_request


@step
def train_group(
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: TrainGroupSettings,
    finished: Annotated[Path | None, Output("Artifact", "What came of each training, for train's --finished.")] = None,
) -> dict[str, Any]:
    """Train several runs on one corpus in one process, which take turns step by step: a GPU works for all of them.

    What came of each is kept in $TEXTVAE_STATE and, where --finished is given, written there, too. `train` then finds
    it, trains nothing, and writes the run's model directory, the same as without this step. A run that diverges or
    fails ends alone; exit code 1 where one failed. Ctrl-C, SIGTERM and $TEXTVAE_MAX_MINUTES are as for `train`: all
    save their states, and the same command goes on.

    \b
    Examples:
      python -m components.train_group --corpus corpora/sotu/corpus --settings group.json
      # group.json: {"at_once": 8, "runs": [{"seed": 1, "settings": SETTINGS}, ...], each SETTINGS the content of a
      # settings/sotu/SYSTEM/train.json. `make repro` writes it where there is a GPU: .state/groups/sotu.json
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    data = TrainingData(corpus)
    trainings = [training for run in settings.runs for training in trainings_of(run.settings, run.seed, data)]
    over: list[Training] = []
    failed: list[str] = []
    stopped: StoppedError | None = None
    with stop_request() as stop:
        for training, ended in train_side_by_side(trainings, data, stop, settings.at_once):
            if isinstance(ended, StoppedError):
                stopped = ended
            elif isinstance(ended, Exception):
                failed.append(training.name)
                say(f"FAILED: {training.name}: {reason(ended)}")
            else:
                over.append(training)
                failure = ended.outcome.failure
                said = "done" if failure is None else f"DIVERGED: {failure['message']}"
                say(f"{training.name}: {said} ({len(over)} of {len(trainings)})")
            del ended  # and with it the memory that it holds, before the next one begins
        if len(over) + len(failed) < len(trainings) and (why := stopped or stop.reason()) is not None:
            raise why
    if failed:
        raise TextVAEError(
            f"{len(failed)} of {len(trainings)} trainings failed ({', '.join(failed)}); the others are done, and their "
            "outcomes kept: run this again once the reason above is put right"
        )
    if finished is not None:
        for training in trainings:
            store = training.store(data)
            [outcome] = store.outcomes()
            (finished / store.fingerprint).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(outcome, finished / store.fingerprint / outcome.name)
    return {"dataset": data.dataset, "trainings": len(trainings)}


def reason(error: Exception) -> str:
    """Why a training failed: in a line where it is no bug."""
    said = explanation(error, LIGHTER["train_group"])
    return said[0] if said is not None else "".join(traceback.format_exception(error)).rstrip()


if __name__ == "__main__":
    train_group.main()
