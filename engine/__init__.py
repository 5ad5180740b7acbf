"""One run, from its spec to its results; and the names to use it by from Python (docs/python.md)."""

from engine.few_shot import train_few_shot
from engine.predictor import Finding, Prediction, Predictor
from engine.spec import FewShotSpec, ModelSpec, PredictorSpec, TransferSpec
from engine.testing import evaluate
from engine.zero_shot import train_transfer
from report.tables import Result

__all__ = [
    "FewShotSpec",
    "Finding",
    "ModelSpec",
    "Prediction",
    "Predictor",
    "PredictorSpec",
    "Result",
    "TransferSpec",
    "evaluate",
    "train_few_shot",
    "train_transfer",
]
