"""XLM-RoBERTa: RoBERTa's model, trained on a hundred languages; its tensors have RoBERTa's names."""

from modelsurgeon.architectures.architecture import but
from modelsurgeon.architectures.tables.roberta import ARCHITECTURE as ROBERTA

ARCHITECTURE = but(ROBERTA, "XLMRobertaForMaskedLM")
