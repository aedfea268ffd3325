"""The papers' tables: their figure, ours, and the trials behind it, one file each."""

from gradleak.reproduce.cpl_init import cpl_init
from gradleak.reproduce.dlg_batch import dlg_batch
from gradleak.reproduce.dlg_defenses import dlg_defenses
from gradleak.reproduce.dlg_text import dlg_text
from gradleak.reproduce.dropout import dropout
from gradleak.reproduce.feedback_blending import feedback_blending
from gradleak.reproduce.gdl_images import gdl_images
from gradleak.reproduce.gdl_labels import gdl_labels
from gradleak.reproduce.gradinversion import gradinversion_ablation
from gradleak.reproduce.idlg_labels import idlg_labels
from gradleak.reproduce.influence import (
    influence,
    influence_directions,
    influence_fairness,
    influence_initialization,
)
from gradleak.reproduce.masking import masking
from gradleak.reproduce.r_gap import r_gap
from gradleak.reproduce.ssras import ssras
from gradleak.reproduce.table import Column, Paper, Table, Told, Value
from gradleak.reproduce.text_attacks import text_attacks

_BOTH = ("mnist", "cifar10")
_BUNDLED = ("faces", "photos")

TABLES: dict[str, Paper] = {
    "r-gap": Paper(
        "R-GAP, DLG and their hybrid on CNN6, CNN6-d and LeNet (Zhu and Blaschko 2021)", r_gap, 20, _BUNDLED
    ),
    "ssras": Paper(
        "pictures that each attack recovers, label known and unknown (Sensors 2022)", ssras, 20, _BUNDLED
    ),
    "idlg-labels": Paper("labels, by DLG and by the sign rule (Zhao et al. 2020)", idlg_labels, 40, _BOTH),
    "dlg-batch": Paper(
        "matching gradients by batch size, 1 to 8 pictures (Zhu et al. 2019)", dlg_batch, 16, ("mnist",)
    ),
    "cpl-init": Paper("success by where the attack starts (Wei et al. 2020)", cpl_init, 10, ("cifar10",)),
    "feedback-blending": Paper(
        "a stream of pictures, with and without blending (Leite et al. 2024)",
        feedback_blending,
        60,
        ("mnist",),
    ),
    "gdl-labels": Paper(
        "labels of 4 to 64 pictures, with repeats; --pictures counts batches (Geng et al. 2021)",
        gdl_labels,
        10,
        _BOTH,
    ),
    "gdl-images": Paper(
        "a wrong label and equal labels; --pictures counts batches of 4 (Geng et al. 2021)",
        gdl_images,
        6,
        ("cifar10",),
    ),
    "gradinversion-ablation": Paper(
        "each term on and off; --pictures counts batches of 4 (Yin et al. 2021)",
        gradinversion_ablation,
        3,
        ("cifar10",),
    ),
    "influence": Paper(
        "predicted error against attacks', 8 networks, 6 defenses (Zhang et al. 2023)",
        influence,
        1,
        ("digits", "faces", "cifar10"),
    ),
    "influence-directions": Paper(
        "noise of one length along three directions (Zhang et al. 2023)", influence_directions, 5, ("mnist",)
    ),
    "influence-fairness": Paper(
        "how far pictures and classes lie apart under one noise (Zhang et al. 2023)",
        influence_fairness,
        30,
        ("mnist",),
    ),
    "influence-initialization": Paper(
        "what each scheme of first weights gives away (Zhang et al. 2023)",
        influence_initialization,
        4,
        ("mnist",),
    ),
    "dlg-defenses": Paper(
        "noise, low precision and pruning, told of and not; six minutes (Zhu et al. 2019)",
        dlg_defenses,
        4,
        ("mnist",),
    ),
    "dlg-text": Paper(
        "a sentence after 0, 10, 20, ... matching gradients, masked LM (Zhu et al. 2019)",
        dlg_text,
        6,
        (),
    ),
    "text-attacks": Paper(
        "DLG, TAG, LAMP and DAGER by batch size and length; --pictures counts batches (four papers)",
        text_attacks,
        3,
        (),
    ),
    "masking": Paper(
        "from where masking, clipping, pruning and noise hide; ten minutes (Kim and Park 2024)",
        masking,
        10,
        ("mnist",),
    ),
    "dropout": Paper(
        "rates of dropout, and attackers who get around it (Zheng 2021)", dropout, 4, ("mnist",)
    ),
}
"""By the name that a command line says."""

__all__ = [
    "TABLES",
    "Column",
    "Paper",
    "Table",
    "Told",
    "Value",
    "cpl_init",
    "dlg_batch",
    "dlg_defenses",
    "dlg_text",
    "dropout",
    "feedback_blending",
    "gdl_images",
    "gdl_labels",
    "gradinversion_ablation",
    "idlg_labels",
    "influence",
    "influence_directions",
    "influence_fairness",
    "influence_initialization",
    "masking",
    "r_gap",
    "ssras",
    "text_attacks",
]
