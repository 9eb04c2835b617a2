"""`python -m laconic`, and `torchrun --nproc-per-node 2 -m laconic train RECIPE.toml`."""

from laconic.cli import main

raise SystemExit(main())
