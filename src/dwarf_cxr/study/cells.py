"""Text in CSV files that are opened in a spreadsheet."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula, whoever wrote it.

    A text that begins as a formula does gets an apostrophe before it (OWASP, "CSV Injection");
    spreadsheets do not show it. Spaces before it do not help.
    """
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text
