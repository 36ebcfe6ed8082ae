#!/bin/sh
# Prints the key-encryption key of a gateway, which lies encrypted by AWS KMS in a file:
#   key_encryption_key: command:/etc/xai/key-from-kms.sh
# Made once, on a machine that you trust:
#   openssl rand -hex 32 > key && aws kms encrypt --key-id alias/proxyxai --plaintext fileb://key \
#     --query CiphertextBlob --output text | base64 -d > /etc/xai/key.encrypted && shred -u key
# With Vault, instead: exec vault kv get -field=key secret/proxyxai
set -eu
aws kms decrypt --ciphertext-blob fileb:///etc/xai/key.encrypted --query Plaintext --output text | base64 -d
