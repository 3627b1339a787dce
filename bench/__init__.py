"""Measuring Caudal against the physical limits of the machine it runs on, in the same run."""
