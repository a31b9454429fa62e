"""Typed errors. Every message names what is wrong and what to do; the command line prints it as one line."""

from __future__ import annotations


class DreamlatheError(Exception):
    """Base of all errors that are the user's to repair.

    ``code`` is stable and machine-readable (the Blender side picks its repair button by it), ``hint`` says what to do.
    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class RequestError(DreamlatheError):
    """A request that cannot be run: a value out of its range, an empty prompt, a NaN."""

    code = "request"


class VocabularyError(RequestError):
    """A prompt with a word that the chosen model does not know."""

    code = "vocabulary"


class ModelError(DreamlatheError):
    """A model folder that is missing, incomplete, corrupt or of the wrong family."""

    code = "model"


class PictureError(DreamlatheError):
    """A picture that cannot be read, or whose object cannot be told from its background."""

    code = "picture"


class OutputError(DreamlatheError):
    """An output folder that cannot be written, or a job folder that holds another request."""

    code = "output"


class SetupError(DreamlatheError):
    """The backend's Python lacks something it needs."""

    code = "environment"


class DivergedError(DreamlatheError):
    """The field vanished, exploded or became NaN, and the automatic restart did not help."""

    code = "diverged"


class Cancelled(DreamlatheError):
    """The user cancelled; the job's folder is kept and resumes."""

    code = "cancelled"
