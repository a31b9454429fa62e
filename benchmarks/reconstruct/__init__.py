"""How near a shape made from one picture comes to the truth, beside two baselines."""
