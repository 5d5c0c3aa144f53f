"""Checkpoints through Orbax's v1 API, and the signal that makes a run save and stop.

Every folder `directory/STEP` holds one complete checkpoint: the state's arrays, the metrics with which it was saved,
and a JSON record (config, seed, versions). The strategies of parallel.py prepare states for restoring and saving with
`abstract` and `to_global`.
"""

import contextlib
import logging
import math
import os
import signal
from collections.abc import Iterator
from typing import Any, Self

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1

from stattn_jax import files
from stattn_jax.command_error import CommandError

STATE = 'state'
META = 'meta'


class CheckpointError(CommandError):
    """Raised for a checkpoint that is unreadable or does not fit; one line names it, the reason and the fix."""


class Checkpointer:
    """Saves and restores a state; keeps the last `keep` checkpoints and the best one by the metric `best_metric`.

    Saving is asynchronous and atomic: a folder gets its final name when it is complete. Incomplete folders of a killed
    run are removed here, unless `read_only` is set, because a reader cannot distinguish them from the save in progress
    of a running process. All processes must make the same calls. Close the checkpointer in a `finally`: a process that
    ends while a save is in progress loses that save.
    """

    def __init__(
        self,
        directory: str,
        keep: int = 3,
        best_metric: str | None = None,
        best_mode: str = 'max',
        read_only: bool = False,
    ):
        if keep < 1 or best_mode not in ('max', 'min'):
            raise ValueError(
                f'keep={keep}, best_mode={best_mode!r}; expected keep >= 1 and best_mode max or min; fix the config'
            )
        self._best_metric, self._sign = best_metric, 1.0 if best_mode == 'max' else -1.0
        preserve = [v1.training.preservation_policies.LatestN(keep)]
        if best_metric is not None:
            preserve.append(
                v1.training.preservation_policies.BestN(
                    get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
                )
            )
        logging.getLogger('absl').addFilter(_not_of_orbax)
        self._orbax = v1.training.Checkpointer(
            # Orbax rejects relative paths, but only when it writes. The URL of a bucket is left unchanged.
            directory if '://' in str(directory) else os.path.abspath(directory),
            # The caller decides when to save; by default, Orbax saves as often as it can.
            save_decision_policy=v1.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=v1.training.preservation_policies.AnyPreservationPolicy(preserve),
            cleanup_tmp_directories=not read_only,
            context=_context(),
        )

    def save(self, step: int, state: Any, meta: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts to save a state; the state may be donated or changed as soon as this returns.

        state: a pytree of arrays over all processes (`strategy.to_global`), none of size zero.
        meta: JSON types.

        Waits for the previous save, whose error it raises. Raises FileExistsError if a checkpoint of `step` exists
        already, and another OSError where the file system cannot take it.
        """
        with self._file_system():
            self._orbax.save_checkpointables_async(step, {STATE: state}, metrics=metrics, custom_metadata={META: meta})

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def latest(self) -> int | None:
        """Returns the last step saved, None if there is none."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Returns the step with the best `best_metric`; of equal ones the later.

        Returns None if no checkpoint was saved with a finite value of the metric.
        """
        scores = {checkpoint.step: self._score(checkpoint.metrics) for checkpoint in self._orbax.checkpoints}
        best = max(scores, key=lambda step: (scores[step], step), default=None)
        return best if best is not None and scores[best] > -math.inf else None

    def load_meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON record saved with a step; raises CheckpointError if it cannot be read."""
        return self._read_metadata(step)[1]

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the state and the JSON record of a step.

        `abstract_state` is the state as ShapeDtypeStructs with the shardings wanted, on any devices
        (`strategy.abstract`). Raises CheckpointError if the checkpoint is missing or damaged, or if its arrays are not
        those of `abstract_state`.
        """
        stored, meta = self._read_metadata(step)
        self._check_tree(step, _leaves(stored), _leaves(abstract_state))
        try:
            return self._orbax.load_checkpointables(step, {STATE: abstract_state})[STATE], meta
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error

    def wait(self) -> None:
        """Waits until the save in progress is complete; raises the error of that save, if any."""
        with self._file_system():
            self._orbax.wait()

    def close(self) -> None:
        """Waits for the save in progress, then releases the directory."""
        with self._file_system():
            self._orbax.close()

    @contextlib.contextmanager
    def _file_system(self) -> Iterator[None]:
        """Raises an OSError that names the directory for an error of Orbax that reports one only in its text."""
        try:
            yield
        except Exception as error:
            known = files.of_file_system(error, str(self._orbax.directory))
            if known is None:
                raise
            raise known from error

    def _score(self, metrics: dict[str, float] | None) -> float:
        """Returns the metric, signed so that larger is better; -inf where it is missing or not finite, NaN included."""
        value = (metrics or {}).get(self._best_metric, math.nan)
        return self._sign * value if math.isfinite(value) else -math.inf

    def _read_metadata(self, step: int) -> tuple[Any, dict[str, Any]]:
        if step not in self.steps():
            have = ', '.join(map(str, self.steps())) or 'none'
            raise CheckpointError(f'no checkpoint of step {step} in {self._orbax.directory}; steps there: {have}')
        try:
            found = self._orbax.checkpointables_metadata(step)
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error
        if META not in (found.custom_metadata or {}):
            raise self._damaged(step, 'its _CHECKPOINT_METADATA is missing or incomplete')
        if found.metadata.get(STATE) is None:
            raise self._damaged(step, f'the index of its folder {STATE!r} is missing or damaged')
        return found.metadata[STATE], found.custom_metadata[META]

    def _check_tree(self, step, stored, wanted):
        for path in sorted(stored.keys() | wanted.keys()):
            have, want = stored.get(path, 'no such array'), wanted.get(path, 'no such array')
            if have != want:
                raise CheckpointError(
                    f'checkpoint {self._orbax.directory / str(step)} does not fit this run: {path}: the checkpoint has '
                    f'{have}, the run wants {want}; use the config it was trained with, or another workdir'
                )

    def _damaged(self, step, reason):
        others = [other for other in self.steps() if other < step]
        then = f'to continue from step {others[-1]}' if others else 'to start again'
        return CheckpointError(
            f'checkpoint {self._orbax.directory / str(step)} is damaged: {reason}; remove that folder {then}'
        )


class StopSignal:
    """Records whether the run has to stop; a context manager around the training loop.

    With one process, SIGTERM or SIGINT sets a flag, and a second SIGINT interrupts at once. With several processes, no
    handler is installed: JAX's own handler receives SIGTERM, and the processes agree on the step after which all of
    them stop. A Python handler would replace it.
    """

    def __enter__(self) -> Self:
        self._requested = False
        self._alone = jax.process_count() == 1
        self._previous = {}
        if self._alone:
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def should_stop(self, step: int) -> bool:
        """Returns True when the run must save and end after `step`; every process must call it at every step."""
        return self._requested if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _ask(self, number, frame):
        self._requested = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Returns whether a line of the log comes from elsewhere: the errors that Orbax logs are raised here, too."""
    return f'{os.sep}orbax{os.sep}' not in record.pathname


def _leaves(tree: Any) -> dict[str, str]:
    """Returns path -> 'dtype[shape]' of every array; typed keys are given as the integers that are stored for them."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        found[jax.tree_util.keystr(path, simple=True, separator='/')] = f'{leaf.dtype}{list(leaf.shape)}'
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f'{type(error).__name__}: {text[0][:200] if text else ""}'


def _context() -> v1.Context:
    """Returns the options under which arrays are saved: each one is written whole, from one device.

    By default, Orbax divides replicated arrays among all devices and compiles a slice for every shape and device at the
    first save: 160 programs for the tiny network on eight devices (orbax 0.12, 2026-11-23).
    """
    context = v1.Context()
    context.array.saving.use_replica_parallel = False
    return context
