"""Stands for your program: says which keys it got, without showing them."""

import os

for name in ("STRIPE_SECRET_KEY", "TWILIO_AUTH_TOKEN"):
    value = os.environ[name]
    if value.startswith("keymoat:"):
        raise SystemExit(f"{name} is a reference, not a key: start this program with `keymoat run`")
    print(f"{name}: {len(value)} characters")
