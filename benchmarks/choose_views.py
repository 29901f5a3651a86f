"""How much each kind of view should weigh, measured: AUROC on a split by whole_weight, view by view.

    python benchmarks/choose_views.py WEIGHTS --data DATA [--split validation] [--n-native 2] [--n-whole 2]

Prints one line a weight for the aligned protocol (rows that are views) and for the `web` view (whole files, as in
use), so that a view plan rests on figures. Pictures are scored once; only the combination varies.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from mai import weights as weights_on_disk
from mai.data.sources import read_set
from mai.images.views import ViewPlan
from mai.measure.metrics import auroc, tpr_at_fpr
from mai.training import evaluation
from mai.training.shipping import session_logits, split_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--n-native", type=int)
    parser.add_argument("--n-whole", type=int)
    parser.add_argument("--whole-share", type=float)
    given = parser.parse_args()
    weights = weights_on_disk.load(given.weights)
    plan = ViewPlan(**weights.preprocessing)
    changes = {"n_native": given.n_native, "n_whole": given.n_whole, "whole_share": given.whole_share}
    plan = replace(plan, **{key: value for key, value in changes.items() if value is not None})
    labelled = read_set(given.data)
    logits = session_logits(weights)
    print(f"{weights.name}, {labelled.name}, {given.split} split, {plan}")
    for protocol, views in (("aligned", ("crop", "whole")), ("native", ("web",))):
        if not any(row.view in views and row.split == given.split for row in labelled.rows):
            continue
        scored = evaluation.score_rows(split_rows(labelled, given.split, views), logits, plan, protocol)
        y = scored.labels
        print(f"{'+'.join(views)}, {protocol}: {int(y.sum())} synthetic, {int((1 - y).sum())} authentic")
        for weight in (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
            z = scored.logits(replace(plan, whole_weight=weight))
            print(
                f"  whole_weight {weight:.1f}: AUROC {auroc(z, y):.4f}, TPR@5%FPR {tpr_at_fpr(z, y, 0.05):.3f}"
            )


if __name__ == "__main__":
    main()
