"""The table of findings in docs/doctor.md, read from the checks.

    python docs/_ext/doctor_page.py

writes it anew, after a change of them; a test compares it.
"""

from pathlib import Path

from hostdev_core.doctor.examine import TOPICS

PAGE = Path(__file__).parents[1] / "doctor.md"
BEGIN, END = "<!-- made by docs/_ext/doctor_page.py -->\n", "<!-- to here -->\n"


def tables() -> str:
    """A table for each topic: code, level, what it means, what to do."""
    lines: list[str] = []
    for topic in TOPICS:
        lines += ["", f"### {topic.title}", ""]
        lines += ["| code | level | what it means | what to do |", "| --- | --- | --- | --- |"]
        for code in topic.codes:
            cells = (f"`{code.name}`", str(code.level), code.title, code.remedy or "nothing")
            lines.append("| {} | {} | {} | {} |".format(*(c.replace("|", r"\|") for c in cells)))
    return "\n".join([*lines, "", ""])


def page(text: str) -> str:
    """The page with these tables in it."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{tables()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
