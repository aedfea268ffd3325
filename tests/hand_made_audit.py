"""Runs of audits that are written down by hand, from a few figures, so that no attack is run."""

from dataclasses import replace

from gradleak.cases import Case, Left, Record, Store
from gradleak.cases.case import ATTACK, FORECAST, KNOWS
from gradleak.cases.done import Done, Sample, Way
from gradleak.cases.store import _Kept

TOP, BELOW = "everything known", "no labels"


def attack(psnr, *, way="plain", batch=0, null=10.0, rung=TOP, name="dlg", attacker=KNOWS, seed=0, **more):
    """Decibels by record of a batch of as many; None is a record without a guess.

    ``labels`` is (the share that is right, that of chance). ``ssim`` and ``null_ssim`` are of every record.
    """
    labels = more.pop("labels", None)
    rows = [_row(value, null, **more) for value in psnr]
    case = Case(ATTACK, way, batch, rung, attacker, name, seed)
    first = batch * len(psnr)
    share, chance = labels or (None, None)
    facts = {
        "outcome": "converged",
        "reason": "",
        "rows": rows,
        "label_agreement": share,
        "null_label_agreement": chance,
        "labels_given": rung == TOP,
        "matching_gradients": 7,
        "seconds": 0.5,
    }
    return Done(case, tuple(range(first, first + len(psnr))), _key(case), facts)


def _row(psnr, null, *, ssim=None, null_ssim=None, label=0, label_guess=0):
    guessed = psnr is not None
    reached = float("-inf") if psnr is None else float(psnr)
    leak = reached - null
    return {
        "guessed": guessed,
        "psnr": _plain(reached),
        "null_psnr": null,
        "random_psnr": null - 3,
        "leak": _plain(leak),
        "leaked": guessed and leak >= 6,
        "ssim": ssim,
        "null_ssim": null_ssim,
        "label": label,
        "label_guess": label_guess,
    }


def forecast(psnr, *, way="plain", batch=0, null=8.0):
    one = {"verdict": "", "null_psnr": null, "label_read": None, "reasons": []}
    case = Case(FORECAST, way, batch)
    first = batch * len(psnr)
    facts = {"samples": [{**one, "psnr": value} for value in psnr], "seconds": 0.1}
    return Done(case, tuple(range(first, first + len(psnr))), _key(case), facts)


def broke(error, *, way="plain", batch=0, records=2):
    """A case that failed."""
    case = Case(ATTACK, way, batch, TOP, KNOWS, "idlg")
    first = batch * records
    return Done(case, tuple(range(first, first + records)), _key(case), {"error": error})


def left(why, *, way="plain", rung=BELOW, spared=False):
    return Left(Case(ATTACK, way, 0, rung, KNOWS, "dlg"), why, spared)


def run(*done, ways=("plain",), names=("a", "b"), left=(), number=1, **facts):
    """A run that is over, of two records in one batch, unless said otherwise."""
    known = {
        "title": "By hand",
        "same": f"{number}",
        "finished": True,
        "stopped": "",
        "model": "Net, 12 parameters",
        "null": "mid-gray",
        "seed": 0,
        "starts": 1,
        "target": None,
        "attacks": ["dlg"],
        "skipped": {},
        "versions": {"gradleak": "0.1.0"},
        "bibtex": "",
        "plan": {},
    }
    return Record(
        number=number,
        facts=known | facts,
        samples=tuple(Sample(name, 0, i, f"class {i}") for i, name in enumerate(names)),
        ways=tuple(one if isinstance(one, Way) else Way(one, "OneGradient()", ()) for one in ways),
        rungs=(TOP, BELOW),
        done=done,
        left=tuple(left),
        contents=_Kept(Store()._shelf, [], ""),
    )


def keep(folder, *records):
    """The same runs in an audit's folder."""
    with Store(folder) as store:
        for record in records:
            inner = {
                "samples": [vars(one) for one in record.samples],
                "batches": [{"file": "none", "samples": list(range(len(record.samples)))}],
                "ways": [{"name": w.name, "client": w.client, "defenses": []} for w in record.ways],
                "rungs": list(record.rungs),
                "left": [one.to_dict() for one in record.left],
            }
            number = store.begin(record.facts | {"inner": inner})
            for done in record.done:
                # A case of another run with other figures is another case.
                store.keep(replace(done, key=f"{number}-{done.key}"), None, number)
    return folder


def _key(case):
    return "-".join(str(value).replace(" ", "_") for value in case.to_dict().values())


def _plain(value):
    return str(value) if abs(value) == float("inf") else value
