"""The demonstration: three classic problems differentiated in every mode, each result checked against a closed form."""

from functrace.demo.report import Report
from functrace.demo.sections import hock_schittkowski, next_steps, textbook_function, wine_network

__all__ = ["Report", "run"]


def run(report: Report) -> bool:
    """Write the whole demonstration to `report`.

    Returns:
        Whether every number agreed with what it was checked against.
    """
    textbook_function(report)
    wine_network(report)
    hock_schittkowski(report)
    next_steps(report)
    return not report.failures
