"""The examples at the end of every command's help."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "analyze": (
        "bloodfilm analyze fields/ --out results",
        'bloodfilm analyze "films/*/40x_*.jpg" --out results --um-per-px 0.16',
        "bloodfilm analyze patients/ --out results",
        "bloodfilm analyze fields/ --out results --cases patients.csv",
        "bloodfilm analyze fields/ --out results --resume",
        "bloodfilm analyze fields/ --out results --explain 50 --save-crops",
        "bloodfilm analyze fields/ --out results --bundle my-bundle --json",
        "bloodfilm analyze slide.svs --out results",
        "bloodfilm analyze slide.ndpi --out results --fields 100 --seed 1",
        "bloodfilm analyze slide.mrxs --out results --region annotations.geojson",
    ),
    "annotate complete": (
        "bloodfilm annotate complete krd --out completed/krd",
        "bloodfilm annotate complete pig_wbc --split train --every 4 --out completed/pig_wbc",
    ),
    "annotate names": (
        "bloodfilm annotate names txl_pbc --microscope Raabin-WBC --split train --out named/raabin",
        "bloodfilm annotate names pig_wbc --split train --least 0.95 --out named/pig",
    ),
    "annotate scale": (
        "bloodfilm annotate scale krd --out scaled/krd",
        "bloodfilm annotate scale mine --keep-stated --bundle my-bundle --out scaled/mine --json",
    ),
    "compare": (
        "bloodfilm compare results-a results-b",
        "bloodfilm compare results manual.csv --case 7 --json comparison.json",
        "bloodfilm compare results/cases/7.json results/cases/8.json",
    ),
    "report": (
        "bloodfilm report results --single-file",
        "bloodfilm report results --explain 50 --out explained",
    ),
    "annotate plan": (
        "bloodfilm annotate plan fields/ --budget 10% --out plan",
        "bloodfilm annotate plan fields/ --budget 30min --by random --out plan",
        "bloodfilm annotate plan fields/ --bundle my-bundle --out plan",
    ),
    "annotate cost": (
        "bloodfilm annotate cost marked/",
        "bloodfilm annotate cost marked/ --full all-of-it/ --json",
    ),
    "data info": (
        "bloodfilm data info LeukemiaAttri_Dataset",
        "bloodfilm data info annotations.json --json > info.json",
    ),
    "data convert": (
        "bloodfilm data convert LeukemiaAttri_Dataset lld.json --to coco",
        "bloodfilm data convert BCCD bccd-yolo --to yolo --copy-images",
        "bloodfilm data convert big.json big.parquet --to index",
        "bloodfilm data convert lld.json to-correct --to label-studio --link",
        "bloodfilm data convert results/result.json to-correct --to label-studio",
        "bloodfilm data convert results/result.json cells.parquet --to parquet",
    ),
    "data audit": (
        "bloodfilm data audit LeukemiaAttri_Dataset --html audit.html --json audit.json",
        "bloodfilm data audit train.json test.json --strict",
        "bloodfilm data audit H_40X_C2 --bundle default --html audit.html",
    ),
    "data fix": (
        "bloodfilm data fix LeukemiaAttri_Dataset --out repaired --no slivers --no no-nucleus",
    ),
    "data split": (
        "bloodfilm data split LeukemiaAttri_Dataset --out split.json --content",
        "bloodfilm data split H_40X_C2 --out loo4.json --leave-patient-out 4 \\",
        "  --dataset loo4-set.json",
    ),
    "data stats": ("bloodfilm data stats LeukemiaAttri_Dataset --html stats.html",),
    "data overlaps": (
        "bloodfilm data overlaps LeukemiaAttri_Dataset --json pairs.json",
        "bloodfilm data overlaps H_40X_C2 --dataset named.parquet",
    ),
    "data transfer": (
        "bloodfilm data transfer H_100X_C1 H_40X_C2/Images --out carried \\",
        "  --pictures carried/pictures",
        "bloodfilm data transfer labels.json phone/ --out carried --match content",
    ),
    "data fetch": (
        "bloodfilm data fetch bccd",
        "bloodfilm data fetch bccd --out data/bccd --accept-licence",
        "bloodfilm data fetch lld --zips ~/Downloads --out data/lld --accept-licence",
    ),
    "demo": ("bloodfilm demo --out demo",),
    "evaluate": (
        "bloodfilm evaluate txl_pbc --split test --clean-splits --level three",
        "bloodfilm evaluate pbc --cells --split test --classes five",
        "bloodfilm evaluate mine --predictions results/result.json --json scores.json",
        "bloodfilm evaluate chula krd txl_pbc@test --cross --heat-map matrix.svg",
        "bloodfilm evaluate mine --cross --by microscope --bundle old=old-bundle \\",
        "  --bundle new=new-bundle --baseline old --fixed-input old=640",
    ),
    "train": (
        "bloodfilm train detector.toml --data ~/data --out runs/detector",
        "bloodfilm train --show-config sparse.toml > sparse.toml",
        "bloodfilm train sparse.toml --data ~/data --out runs/sparse",
    ),
    "export": (
        "bloodfilm export runs/detector runs/classifier --data ~/data --out my-bundle",
        "bloodfilm export runs/detector runs/classifier --int8 --prior erythroblast=0.01 \\",
        "  --operating-point default --data ~/data --out my-bundle",
    ),
    "adapt": (
        "bloodfilm adapt default --target new-scope/ --out adapted --labelled marked.json",
        "bloodfilm adapt my-bundle --target new-scope/ --out adapted --labelled marked.json \\",
        "  --method self-training --check bcisc",
    ),
    "learn": (
        'bloodfilm learn default cells/ --new "hairy cell=lymphocyte lineage" --out with-hairy',
        'bloodfilm learn default cells/ --new "hairy cell=lymphocyte lineage" --um-per-px 0.1 \\',
        '  --check ours --prior "hairy cell=0.1" --out with-hairy',
        "bloodfilm learn default marked.json --out with-monoblasts",
    ),
    "exemplars": ("bloodfilm exemplars my-bundle --data ~/data --out my-bundle-2",),
    "attributes": (
        "bloodfilm attributes my-bundle --data ~/data --out my-bundle-2",
        "bloodfilm attributes my-bundle --data ~/data --attribute cell_size \\",
        "  --attribute nuclear_shape --calibration patients.json --out my-bundle-2",
    ),
    "films": (
        "bloodfilm films drawn --fields 50 --look pbc-like --look lld40x-like",
        "bloodfilm films slide --slide 20000x15000 --slide-format svs",
        'bloodfilm films bed --lld H_40X_C2 --lld L_100X_C2 --fields 3 --fault "patient leak"',
    ),
}


def epilog(command: str) -> str:
    """Return a command's examples as its help shows them, unwrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])])
