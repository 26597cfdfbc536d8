#!/bin/bash
# A search on a SLURM cluster: one driver, and a worker on each GPU, over a PostgreSQL server.
#
#   export NAS_DB=postgresql+psycopg://USER@HOST/NAME    # the password is in ~/.pgpass
#   sbatch examples/slurm.sh big --data cifar10:data/cifar10 --epochs 20 --trials 500
#
# Submit it in a folder that all nodes see, with the study's name and whatever 'nas search' takes. Submitted again it goes
# on with the study. More workers join at any time, and leave:
#
#   sbatch --array=1-20 --gpus=1 --time=4:00:00 --signal=TERM@300 --wrap "nas worker big"
#
#SBATCH --job-name=nas
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
# Five minutes before the end workers stop at their next checkpoint and give their candidates back.
#SBATCH --signal=TERM@300
set -euo pipefail
study=$1
shift
export NAS_FILES=${NAS_FILES:-nas-files}

nas search --study "$study" --executor queue --workers "${SLURM_NTASKS:-2}" --threads "${SLURM_CPUS_PER_TASK:-1}" "$@" &
driver=$!
until nas show "$study" > /dev/null 2>&1; do
    kill -0 "$driver" # or there will never be a study
    sleep 1
done
srun nas worker "$study" &
workers=$!
wait "$driver"
kill -TERM "$workers" # which srun hands on
wait "$workers"
