"""Tables as LXD draws them, and the other formats of ``-f``."""

from __future__ import annotations

from lxpy.api.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rows = list[list[str]]

FORMATS = ("table", "csv", "json", "yaml", "compact")


def show(fmt: str, header: list[str], rows: Rows, raw: Any) -> str:
    """`rows` under `header`, or `raw` as json or yaml; ends with a newline when there is anything."""
    if fmt == "table":
        return table(header, rows)
    if fmt == "csv":
        return csv(rows)
    if fmt == "compact":
        return compact(header, rows)
    if fmt == "json":
        return json(raw) + "\n"
    if fmt == "yaml":
        return yaml(raw)
    raise ApiError(f"Invalid format {fmt!r}: use one of {', '.join(FORMATS)}")


def table(header: list[str], rows: Rows) -> str:
    """Borders of + - |, centred header, a line under every row; cells may hold several lines."""
    split = [[cell.split("\n") for cell in row] for row in rows]
    widths = [len(name) for name in header]
    for row in split:
        for column, lines in enumerate(row):
            for line in lines:
                if len(line) > widths[column]:
                    widths[column] = len(line)
    border = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    title = "|" + "|".join(f" {_centre(name, w)} " for name, w in zip(header, widths, strict=True)) + "|"
    out = [border, title, border]
    for row in split:
        for number in range(max(map(len, row), default=1)):
            cells = [
                (lines[number] if number < len(lines) else "").ljust(width)
                for lines, width in zip(row, widths, strict=True)
            ]
            out.append("| " + " | ".join(cells) + " |")
        out.append(border)
    return "\n".join(out) + "\n"


def _centre(text: str, width: int) -> str:
    # The odd space goes to the right, as in LXD's tables (str.center alternates).
    gap = width - len(text)
    return " " * (gap // 2) + text + " " * (gap - gap // 2)


def compact(header: list[str], rows: Rows) -> str:
    """Columns without lines."""
    split = [[cell.split("\n") for cell in row] for row in [header, *rows]]
    widths = [max(len(line) for row in split for line in row[column]) for column in range(len(header))]
    out = []
    for row in split:
        for number in range(max(map(len, row), default=1)):
            cells = [
                (lines[number] if number < len(lines) else "").ljust(width)
                for lines, width in zip(row, widths, strict=True)
            ]
            out.append("  " + "  ".join(cells))
    return "\n".join(out) + "\n"


def csv(rows: Rows) -> str:
    """Comma-separated, quoted only where needed; no header, as LXD has it."""
    return "".join(",".join(map(_quoted, row)) + "\n" for row in rows)


def _quoted(cell: str) -> str:
    if any(character in cell for character in ',"\n\r') or cell.startswith(" "):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def json(value: Any) -> str:
    from lxpy.client import wire

    return wire.dumps(value)


def yaml(value: Any) -> str:
    """Block style, keys in their order, long texts as literal blocks."""
    import yaml as pyyaml

    class Dumper(pyyaml.SafeDumper):
        pass

    def text(dumper: pyyaml.SafeDumper, data: str) -> pyyaml.ScalarNode:
        style = "|" if "\n" in data else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    result: str = pyyaml.dump(
        value, Dumper=Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10_000
    )
    return result


def ordered(document: dict[str, Any]) -> dict[str, Any]:
    """An object with its free-form parts sorted, so that two shows can be compared."""
    free = ("config", "devices", "properties", "expanded_config", "expanded_devices")
    return {
        key: dict(sorted(value.items())) if key in free and isinstance(value, dict) else value
        for key, value in document.items()
    }


def parse_yaml(text: str, what: str) -> Any:
    """An object as users write it (`yamltext`). Raises `ApiError` with the place of the fault."""
    import yaml as pyyaml

    from lxpy.client import yamltext

    try:
        return yamltext.load(text)
    except pyyaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ApiError(f"{what} is not valid YAML{where}: {reason}") from None


def date(stamp: str, missing: str = "") -> str:
    """``2026/11/23 21:18 UTC``, LXD's way; the zero time is `missing`."""
    if not stamp or stamp.startswith(("0001-", "1970-01-01T00:00:00")):
        return missing
    return f"{stamp[:4]}/{stamp[5:7]}/{stamp[8:10]} {stamp[11:16]} UTC"


def size(count: float) -> str:
    """``1.50GiB``."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{int(count)}B" if unit == "B" else f"{count:.2f}{unit}"
