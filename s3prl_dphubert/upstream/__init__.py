"""The s3prl plugin: upstreams, their options and how they get onto ``s3prl.hub``."""
