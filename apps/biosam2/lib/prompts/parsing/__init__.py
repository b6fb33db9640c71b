"""Any client's request, turned into a ``PromptSet``."""

from lib.prompts.parsing.request import Mode, parse_prompts

__all__ = ["Mode", "parse_prompts"]
