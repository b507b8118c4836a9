"""The edge beside nginx, beside itself without admission, and beside other caches: one run."""
