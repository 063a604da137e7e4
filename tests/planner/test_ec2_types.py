"""EC2's GPU types against an independent catalogue: what moto's EC2 answers to describe-instance-types."""

from typing import Any

import boto3
import pytest
from moto import mock_aws

from headrace.planner.gpus import find_gpu
from headrace.planner.price_book import shipped_prices
from headrace.planner.prices import Price

PRICES = [price for price in shipped_prices() if price.provider == "AWS"]


@pytest.fixture(scope="module")
def types() -> dict[str, Any]:
    """Instance type -> its GPUs in the catalogue, of one kind each."""
    with mock_aws():
        client = boto3.client("ec2", "us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
        pages = client.get_paginator("describe_instance_types").paginate(
            InstanceTypes=[price.instance for price in PRICES]
        )
        return {each["InstanceType"]: each["GpuInfo"]["Gpus"] for page in pages for each in page["InstanceTypes"]}


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.instance)
def test_count_name_and_memory_agree(price: Price, types: dict[str, Any]) -> None:
    (gpus,) = types[price.instance]
    assert gpus["Count"] == price.gpus
    assert price.gpu.split("-")[0] == gpus["Name"]
    assert find_gpu(price.gpu).memory_mib == gpus["MemoryInfo"]["SizeInMiB"]
