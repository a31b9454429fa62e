"""``python -m backend``: the command line."""

from __future__ import annotations

from .cli import leave, main

leave(main())
