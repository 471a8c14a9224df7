"""Tables from cells alone: reading results, the leaderboard, and its files; needs neither torch nor a learner."""

from fewrec.report.export import export_reference
from fewrec.report.leaderboard import leaderboard
from fewrec.report.render import terminal_table, write_leaderboard
from fewrec.report.results import Results, load_results

__all__ = ["Results", "export_reference", "leaderboard", "load_results", "terminal_table", "write_leaderboard"]
