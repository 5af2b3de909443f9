"""Catalogue of public data sets: addresses, licences and checksums.

Addresses name a fixed version wherever the publisher provides such addresses.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArchivePart:
    """One file to download.

    Attributes:
        url: its address.
        name: file name; an archive is deleted after unpacking.
        sha256: its checksum, where the publisher gives one or the address fixes the content.
        size: its length in bytes, where that is known.
        archive: whether it is a zip to unpack.
        strip: number of leading path components to remove from names in the archive.
        tree: the git tree id of the contents (for archives that are packed anew on every
            download).
        listing: the address of Mendeley's list of files, which provides the rest for `name`.
    """

    url: str
    name: str
    sha256: str | None = None
    size: int | None = None
    archive: bool = False
    strip: int = 0
    tree: str | None = None
    listing: str | None = None


@dataclass(frozen=True)
class DownloadSource:
    """A public data set.

    Attributes:
        name: on the command line.
        title: its full name.
        page: its web page.
        licence: as its publisher states it.
        cite: what to cite.
        parts: files to download; empty where it has to be downloaded by hand.
        instructions: for downloading by hand.
        afterwards: next steps after the download.
    """

    name: str
    title: str
    page: str
    licence: str
    cite: str
    parts: tuple[ArchivePart, ...] = ()
    instructions: str = ""
    afterwards: str = ""


_WBCATT = "https://raw.githubusercontent.com/apple2373/wbcatt/ad255b80f6d56b9f72508b04466c3c4a2c95c97b/submission"
_MENDELEY = "https://data.mendeley.com"

_LLD = """\
LLD lies on a file-sharing site, one folder a subset. Folders there have no addresses of files that
a program could fetch and check, so this is for you to do:

1. Read the authors' pages and their terms:
   https://im.itu.edu.pk/sparse-leukemiaattri/
   https://github.com/intelligentMachines-ITU/Blood-Cancer-Dataset-Lukemia-Attri-MICCAI-2024
   https://github.com/intelligentMachines-ITU/LLD-Large-Leukemia-dataset-for-microscopic-imagery
2. Open the folders that their READMEs name, and choose "Download all":
   sparse set  https://drive.google.com/drive/folders/1VJSM5d1ndKtz4AQy7zQfnVGyiyGjRl8W
   H_100X_C1   https://drive.google.com/drive/folders/1GTmefJJQyVaZ3qaCdfhvryWX9kNdKP80
   H_100X_C2   https://drive.google.com/drive/folders/1gdP_zikQ8Bo52-nQXBky6LdVCqJmzErN
   L_100X_C1   https://drive.google.com/drive/folders/1W1CJdvGoTuF9VkGnXURli0fVZLrTaBbD
   L_100X_C2   https://drive.google.com/drive/folders/11pMj05Fba6fj6CJnDSXOUEtMxj4zkc9R
   H_40X_C1    https://drive.google.com/drive/folders/1b0ow0uqp32WvRMalrJWfDswxVCjMvPps
   H_40X_C2    https://drive.google.com/drive/folders/1o0DiZcsoFI4mMpQMpvsDkU4gm_9ST4rY
   L_40X_C2    https://drive.google.com/drive/folders/1Xpbig7gVwfGi4mruBA8JGpddlO8njeeJ
3. The site sends a folder as several zips. Put all of them into one folder, say zips, and let

   bloodfilm data fetch lld --zips zips --out lld --accept-licence

   unpack them: all or none, so that no damaged zip loses a fifth of the images in silence. It
   counts what is missing then.
"""

CATALOGUE: dict[str, DownloadSource] = {
    source.name: source
    for source in (
        DownloadSource(
            "lld",
            "Large Leukemia Dataset (LeukemiaAttri)",
            "https://im.itu.edu.pk/sparse-leukemiaattri/",
            "CC BY-NC-SA 4.0, as users of the set state it; the authors' repositories hold none",
            "Rehman et al., arXiv 2504.02602 (2025); Rehman et al., MICCAI 2024, arXiv 2405.10803",
            instructions=_LLD,
        ),
        DownloadSource(
            "pbc",
            "PBC: normal peripheral blood cells, 17,092 images, Barcelona",
            f"{_MENDELEY}/datasets/snkd93bnjr/1",
            "CC BY 4.0",
            "Acevedo et al., Data in Brief 30 (2020) 105474, doi 10.17632/snkd93bnjr.1",
            (
                ArchivePart(
                    f"{_MENDELEY}/public-files/datasets/snkd93bnjr/files/"
                    "2fc38728-2ae7-4a62-a857-032af82334c3/file_downloaded",
                    "PBC_dataset_normal_DIB.zip",
                    archive=True,
                    strip=1,
                    listing=f"{_MENDELEY}/public-api/datasets/snkd93bnjr/files"
                    "?folder_id=root&version=1",
                ),
            ),
            afterwards="fetch wbcatt into the same folder to have its attributes too",
        ),
        DownloadSource(
            "wbcatt",
            "WBCAtt: 11 attributes of 10,298 PBC cells (labels only)",
            "https://github.com/apple2373/wbcatt",
            "MIT",
            "Tsutsui, Pang & Wen, NeurIPS 2023 Datasets and Benchmarks, arXiv 2306.13531",
            (
                ArchivePart(
                    f"{_WBCATT}/pbc_attr_v1_train.csv",
                    "wbcatt_train.csv",
                    "0ae43bc4e38740dd2d93859e3894af96cb570ebc709620fa41b5042c628ff9ec",
                    913486,
                ),
                ArchivePart(
                    f"{_WBCATT}/pbc_attr_v1_val.csv",
                    "wbcatt_val.csv",
                    "28a7c116c111e15652e995974770ceb91a1e123a9804d6a9c5e4a53d046be9a0",
                    152836,
                ),
                ArchivePart(
                    f"{_WBCATT}/pbc_attr_v1_test.csv",
                    "wbcatt_test.csv",
                    "f97100edd420a68d44fa15df11ef1f98a328813b9f5e9d49d67dbc20e89a73c5",
                    459041,
                ),
            ),
            afterwards="its images are PBC's: fetch pbc into the same folder",
        ),
        DownloadSource(
            "bccd",
            "BCCD: 364 fields with boxes of white cells, red cells and platelets",
            "https://github.com/Shenggan/BCCD_Dataset",
            "MIT",
            "github.com/Shenggan/BCCD_Dataset",
            (
                ArchivePart(
                    "https://github.com/Shenggan/BCCD_Dataset/archive/"
                    "d272fb14cdff6e473fafeeeba32aba5f560e9e43.zip",
                    "BCCD_Dataset.zip",
                    archive=True,
                    strip=1,
                    tree="944cec95724abb39538c95197c9d9ee36b7930fc",
                ),
            ),
            afterwards="the fields are in its folder BCCD",
        ),
        DownloadSource(
            "txl",
            "TXL-PBC: 1,440 fields with boxes of white cells, red cells and platelets",
            "https://github.com/lugan113/TXL-PBC_Dataset",
            "MIT (labels and repository; the terms of its Raabin-WBC images are not verified)",
            "Gan & Li, arXiv 2407.13214",
            (
                ArchivePart(
                    "https://github.com/lugan113/TXL-PBC_Dataset/archive/"
                    "056d09e45403f4d1321b99cdb2cfcc3eb605edcf.zip",
                    "TXL-PBC_Dataset.zip",
                    archive=True,
                    strip=1,
                    tree="46c255f5bb5b9a9e8789a3c880969fde70424f7f",
                ),
            ),
            afterwards="the fields are in its folder TXL_PBC",
        ),
    )
}
"""Data sets by their name on the command line."""
