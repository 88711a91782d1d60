"""What can go wrong, as one tree.

    ZtpError                    the user's mistake: one line with rule, value, fix; exit status 2
    ├── ConfigError             a configuration (or its file) is malformed or contradicts itself
    ├── SpaceError              a search-space file is malformed
    ├── BudgetError             the budget cannot be met in this space
    ├── ModelError              the model cannot be had, or is of a kind that is not supported
    ├── DataError               the images or their labels cannot be had
    └── StudyError              the study in the database does not fit what is asked
    MachineError                our fault or the machine's; exit status 1
    ├── WorkerError             a worker failed for good
    └── OutageError             the study database was away for longer than is waited for
"""


HEAD, TAIL = 1_500, 400
"""Characters of a message that are kept, where it quotes a value of millions."""


class ZtpError(Exception):
    """The user's mistake; its text is one line with the rule, the value and the fix."""

    def __init__(self, message: str = "") -> None:
        line = message if len(message) <= HEAD + TAIL else f"{message[:HEAD]} … {message[-TAIL:]}"
        super().__init__(line)


class ConfigError(ZtpError):
    """A pruning configuration, or the file that holds one, breaks a rule."""


class SpaceError(ZtpError):
    """A search-space file breaks a rule."""


class BudgetError(ZtpError):
    """No configuration of the space meets the budget."""


class ModelError(ZtpError):
    """The model cannot be had, or is not one that can be pruned."""


class DataError(ZtpError):
    """Images or labels cannot be had as asked."""


class StudyError(ZtpError):
    """The stored study and the request contradict each other."""


class MachineError(Exception):
    """What nobody who uses the program did wrong; the same command again goes on from there."""


class OutageError(MachineError):
    """The study database or Ray cannot be reached, or a disk is full, and that lasts."""


class WorkerError(MachineError):
    """Evaluation failed for a reason that is not in the configuration."""
