"""Programs that show tornado_sessions at work; start one with ``python -m``."""
