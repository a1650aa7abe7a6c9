"""Pages for people: templates, stylesheet, translations, and the choice of language."""

from __future__ import annotations

from .language import LANGUAGES, language_for
from .render import STYLESHEET_PATH, Page, Pages

__all__ = ["LANGUAGES", "STYLESHEET_PATH", "Page", "Pages", "language_for"]
