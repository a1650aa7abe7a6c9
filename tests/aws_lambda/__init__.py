"""The gate in AWS Lambda functions."""
