"""Evaluate the data sets of a transfer suite in a process each, and log when each ends."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsa_eval.campaigns.campaign import Outcome, read_outcome
from rsa_eval.campaigns.transfer import processes
from rsa_eval.campaigns.trials import Trial

_LAST_OWN_CODE = 128  # above, exit codes are those of signals

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferJobs:
    """Data sets and the commands that evaluate one each."""

    trials: Sequence[Trial]
    commands: Mapping[str, Sequence[str]]
    """By data set."""
    records: Mapping[str, str]
    """Names of the records → their data sets."""
    logs: Path
    """Folder of the commands' output."""

    def run(self, num_processes: int, budget_minutes: float | None) -> Outcome:
        """Run the commands, at most so many at a time, and read all records."""
        codes, stopped = processes.run_in_processes(
            self.commands, num_processes, self.logs, budget_minutes, self._tell
        )
        outcome = read_outcome(self.trials)
        signals = [code for code in codes.values() if code > _LAST_OWN_CODE]
        outcome.stopped = stopped or next(iter(signals), 0)
        if not outcome.stopped:
            outcome.failures = {
                (trial, name): f"exit code {codes[data_set]}; see {self._log_of(data_set)}"
                for trial, name in outcome.missing
                for data_set in [self.records[name]]
            }
        return outcome

    def _log_of(self, data_set: str) -> Path:
        return self.logs / f"{data_set}.log"

    def _tell(self, data_set: str, code: int | None) -> None:
        """Log a line at the start of a command, which has no exit code yet, and at its end."""
        if code is None:
            _log.info("%s: started, %s", data_set, self._log_of(data_set))
        elif code:
            _log.warning("%s: exit code %d, see %s", data_set, code, self._log_of(data_set))
        else:
            records = read_outcome([self._of(trial, data_set) for trial in self.trials]).records
            cells = [record.metrics[record.headline].text for record in records.values()]
            _log.info("%s: recorded, %s %%", data_set, ", ".join(cells))

    def _of(self, trial: Trial, data_set: str) -> Trial:
        """Return a trial with its evaluations on one data set only."""
        own = [each for each in trial.evaluations if self.records.get(each.name) == data_set]
        return replace(trial, evaluations=tuple(own))
