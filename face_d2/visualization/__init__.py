"""Plots and contact sheets of evaluation results."""

from face_d2.utils.requirements import require

require("plots")
