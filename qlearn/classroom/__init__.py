"""Classroom: what the chapters need besides the library: set-up, exercises and their checks."""

from qlearn.classroom.environment import check_environment, results_folder, setup
from qlearn.classroom.exercises import check, exercises

__all__ = ["check", "check_environment", "exercises", "results_folder", "setup"]
