"""Data from anywhere to anywhere: a genome from the web, a resource that tasks share, results in a bucket.

    python 04_data.py s3://my-bucket/composition

`s3` is a remote of your rclone configuration (`rclone config`, `scitq config rclone --check`); a folder does as well. The other
two addresses are public; give your own with --genome and --taxonomy.
"""

import argparse

import scitq

NCBI = "https://ftp.ncbi.nlm.nih.gov"
GENOME = f"{NCBI}/genomes/all/GCF/000/005/845/GCF_000005845.2_ASM584v2/GCF_000005845.2_ASM584v2_genomic.fna.gz"
TAXONOMY = f"{NCBI}/pub/taxonomy/taxdump.tar.gz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("output", help="where the results go: s3://bucket/folder, or a folder")
parser.add_argument("--genome", default=GENOME, help="a FASTA file, compressed")
parser.add_argument("--taxonomy", default=TAXONOMY, help="a tar archive with names.dmp")
given = parser.parse_args()

with scitq.open("data.scitq") as q:
    # What is fetched stands in $INPUT and $RESOURCE when the command starts. The archive is fetched and unpacked once,
    # however many tasks share it, and kept for the next ones.
    count = q.submit(
        "grep -v '>' $INPUT/* | fold -w1 | sort | uniq -c > $OUTPUT/bases.txt; grep -m1 'Escherichia coli' $RESOURCE/names.dmp",
        shell=True, name="count bases", retry=2,
        input=f"{given.genome}|gunzip", resource=f"{given.taxonomy}|untar", output=f"{given.output.rstrip('/')}/counts",
    )  # fmt: skip

    # What one task leaves is the next one's input, wherever it is; that it has to wait for it goes without saying.
    percent = q.submit(
        "awk '{ n[$2] = $1; all += $1 } END { print 100 * (n[\"G\"] + n[\"C\"]) / all, \"% GC\" }' $INPUT/bases.txt",
        shell=True, name="GC", input=count.output,
    )  # fmt: skip

    print("taxon:", count.result().stdout.strip())
    print(percent.result().stdout.strip())
    for file in count.files():
        print(f"{count.output / file.name}: {file.size} bytes, MD5 {file.md5}")
