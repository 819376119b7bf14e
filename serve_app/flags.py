"""Flags that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Emotion = Annotated[str, typer.Option(help="neutral, happy, sad, surprised or angry; happy:0.5 is half of it. For clips: emo.")]
Choices = Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE, of what only this engine knows; may repeat.")]
