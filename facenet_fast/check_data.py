"""`facenet-fast data check`: print what is wrong with a folder of identities, and write it down."""

from __future__ import annotations

import json
import sys
import time

from facenet_fast.config import DataConfig
from facenet_fast.data.check import FINDINGS, DataCheck, Finding, Kind, check_folder
from facenet_fast.data.quarantine import write_quarantine
from facenet_fast.files import check_output, write_text_aside
from facenet_fast.report.progress import image_progress

__all__ = ["check_data"]

_N_EXAMPLES = 5
_N_SHOWN = 3  # images of a group, and sizes and formats of a folder


def check_data(config: DataConfig) -> DataCheck:
    """Look at a folder of identities, print a table of findings, and write the files asked for.

    What is found is no error, and nothing is deleted. ``OUT.json`` holds the fields of `DataCheck`,
    ``OUT.txt`` is what ``train --quarantine`` takes. They are written at the end, whole or not at all.

    Parameters
    ----------
    config : DataConfig
        The folder, the test set, what counts as tiny and as near, and the files to write.

    Returns
    -------
    DataCheck

    Raises
    ------
    UserError
        If a folder or the pairs file cannot be read, the folder has no images, or a file cannot be written.
    """
    if config.report_path:
        check_output(config.report_path, ".json", "a report")
    if config.quarantine_path:
        check_output(config.quarantine_path, ".txt", "images to leave out")
    start = time.monotonic()
    result = check_folder(
        config.data_dir,
        against=config.against,
        against_dir=config.against_dir,
        tiny_pixels=config.tiny_pixels,
        near=config.near,
        threads=config.threads or None,
        progress=image_progress,
    )
    seconds = time.monotonic() - start
    for line in (*_summary(result, seconds), "", *_table(result)):
        print(_printable(line))
    print()
    if config.report_path:
        write_text_aside(config.report_path, json.dumps(result.to_dict(), indent=1) + "\n")
        print(f"All of it: {config.report_path}")
    else:
        print("All of it in a file: --report-path OUT.json")
    if config.quarantine_path:
        write_quarantine(result.quarantine, config.quarantine_path, config.data_dir)
        print(
            f"{len(result.quarantine)} images to leave out: facenet-fast train --quarantine "
            f"{config.quarantine_path}"
        )
    elif result.quarantine:
        print(f"{len(result.quarantine)} images to leave out in a file: --quarantine-path OUT.txt")
    return result


def _summary(result: DataCheck, seconds: float) -> list[str]:
    n_seen = result.n_images + result.n_test_images
    counts = [n for n, n_people in result.images_per_person.items() for _ in range(n_people)]
    lines = [
        f"{result.n_images} images of {result.n_people} people in {result.data_dir}; {result.n_readable} can "
        f"be read ({seconds:.1f} seconds, {n_seen / max(seconds, 1e-9):.0f} images a second)",
        f"Images a person: {counts[0]} to {counts[-1]}, median {counts[len(counts) // 2]}",
    ]
    for title, numbers in (("Sizes", result.sizes), ("Formats", result.formats), ("Modes", result.modes)):
        if numbers:
            lines.append(f"{title}: {_most_frequent(numbers)}")
    if result.n_turned:
        lines.append(f"Turned when read, as EXIF says: {result.n_turned}")
    if result.n_test_images:
        lines.append(f"Test set: {result.n_test_images} readable images")
    return lines


def _most_frequent(numbers: dict[str, int]) -> str:
    shown = [f"{name} ({n})" for name, n in list(numbers.items())[:_N_SHOWN]]
    n_more = len(numbers) - len(shown)
    return ", ".join(shown) + (f" and {n_more} more" if n_more else "")


def _table(result: DataCheck) -> list[str]:
    found = {name: result.findings[name] for name in FINDINGS if result.findings[name]}
    width = max((len(FINDINGS[name].title) for name in found), default=0)
    lines = []
    if found:
        lines.append(f"{'Found':{width}}  {'count':>7}  left out")
    for name, findings in found.items():
        kind = FINDINGS[name]
        left_out = "-" if kind.leaves_out == "none" else kind.leaves_out
        lines.append(f"{kind.title:{width}}  {len(findings):7}  {left_out}")
        lines += [f"    {_say(finding, kind)}" for finding in findings[:_N_EXAMPLES]]
        if len(findings) > _N_EXAMPLES:
            lines.append(f"    and {len(findings) - _N_EXAMPLES} more")
    missing = [FINDINGS[name].title for name in FINDINGS if name not in found]
    return [*lines, f"None: {'; '.join(missing)}"] if missing else lines


def _say(finding: Finding, kind: Kind) -> str:
    subjects = finding.people if kind.is_of_people else finding.images
    text = ", ".join(subjects[:_N_SHOWN])
    if len(subjects) > _N_SHOWN:
        text += f" and {len(subjects) - _N_SHOWN} more"
    notes = [f"as {finding.also}"] if finding.also else []
    notes += [finding.detail] if finding.detail else []
    notes += [f"correlation {finding.correlation:.3f}"] if finding.correlation is not None else []
    return f"{text} ({', '.join(notes)})" if notes else text


def _printable(text: str) -> str:
    """Return text whose characters the output has: names on disk may hold bytes that are none."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
