"""What tests share: small runs, stand-ins for trainers, a Slurm of one node, flags of the compiler."""
