"""Pages for people: templates, stylesheet, translations, and the choice of language."""

from __future__ import annotations

from .language import LANGUAGES, language_for
from .render import STYLESHEET_PATH, Page, Pages
from .scripts import POPUP_SCRIPT_PATH

__all__ = ["LANGUAGES", "POPUP_SCRIPT_PATH", "STYLESHEET_PATH", "Page", "Pages", "language_for"]
