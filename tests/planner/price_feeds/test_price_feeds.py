"""The providers' price lists: what is read of them, what is passed over, and lists that are none.

All answers are written by us from the documented schemas (`price_answers.py`).
"""

import pytest
from price_answers import AWS_ROW, G2_PARTS, G2_STANDARD_4_USD, aws_list, azure_item, azure_page, gcp_sku

from headrace.core.errors import HeadraceError
from headrace.planner.price_book import shipped_prices
from headrace.planner.price_feeds import aws, azure, gcp
from headrace.planner.price_feeds.quote import Quote


def read_aws(*rows: dict[str, str], instances: tuple[str, ...] = ("g6.xlarge", "g5.xlarge")) -> list[Quote]:
    """What is found in a list of these rows."""
    return list(aws.quotes(aws_list(*rows).splitlines(keepends=True), instances))


def test_aws_on_demand_linux() -> None:
    found = read_aws({"PricePerUnit": "0.8048000000"}, {"Instance Type": "g5.xlarge", "PricePerUnit": "1.006"})
    assert [(each.instance, each.usd_per_hour, each.region) for each in found] == [
        ("g6.xlarge", 0.8048, "us-east-1"),
        ("g5.xlarge", 1.006, "us-east-1"),
    ]
    assert "2026-11-20" in found[0].source


@pytest.mark.parametrize(
    "other",
    [
        {"TermType": "Reserved"},
        {"Tenancy": "Dedicated"},
        {"Operating System": "Windows"},
        {"Pre Installed S/W": "SQL Std"},
        {"CapacityStatus": "UnusedCapacityReservation"},
        {"operation": "RunInstances:0002"},
        {"Currency": "CNY"},
        {"Unit": "Quantity"},
        {"MarketOption": "CapacityBlock"},
        {"PricePerUnit": "0.0000000000"},
        {"PricePerUnit": "nan"},
        {"Instance Type": "m7i.large"},
    ],
    ids=str,
)
def test_aws_rows_of_something_else(other: dict[str, str]) -> None:
    assert read_aws({"PricePerUnit": "9.9", **other}) == []
    assert [each.usd_per_hour for each in read_aws({"PricePerUnit": "9.9", **other}, {})] == [1.0]


def test_no_more_is_read_of_the_aws_file_than_is_needed() -> None:
    lines = iter(aws_list({}, {"Instance Type": "m7i.large"}).splitlines(keepends=True))
    assert len(list(aws.quotes(lines, ["g6.xlarge"]))) == 1
    assert "m7i.large" in next(lines)


@pytest.mark.parametrize("text", ["", "<html>not found</html>", aws_list({}, leave_out="PricePerUnit")], ids=len)
def test_what_is_no_aws_list(text: str) -> None:
    with pytest.raises(HeadraceError, match="PricePerUnit"):
        list(aws.quotes(text.splitlines(keepends=True), [AWS_ROW["Instance Type"]]))


def test_an_aws_list_with_a_quote_that_does_not_end() -> None:
    with pytest.raises(HeadraceError, match="cannot be read"):
        list(aws.quotes(['"' + "x" * 200_000], ["g6.xlarge"]))


def test_azure_pay_as_you_go_linux() -> None:
    (found,) = azure.quotes(azure_page(azure_item(retailPrice=3.673)))
    assert found == Quote(
        "Azure",
        "NC24ads_A100_v4",
        "eastus",
        3.673,
        "Azure Retail Prices, pay as you go, Linux, effective 2026-10-01",
    )


@pytest.mark.parametrize(
    "other",
    [
        {"productName": "Virtual Machines NCads A100 v4 Series Windows"},
        {"skuName": "NC24ads A100 v4 Spot"},
        {"meterName": "NC24ads A100 v4 Low Priority"},
        {"productName": "NCads A100 v4 Series Cloud Services"},
        {"type": "Reservation"},
        {"type": "DevTestConsumption"},
        {"unitOfMeasure": "1/Month"},
        {"currencyCode": "EUR"},
        {"isPrimaryMeterRegion": False},
        {"retailPrice": 0.0},
        {"retailPrice": None},
        {"armSkuName": ""},
    ],
    ids=str,
)
def test_azure_meters_of_something_else(other: dict[str, object]) -> None:
    assert list(azure.quotes(azure_page(azure_item(**other)))) == []


def test_azure_is_asked_for_what_is_wanted() -> None:
    path = azure.first_path("eastus", ["NC4as_T4_v3", "NC24ads_A100_v4"])
    assert path.startswith("/api/retail/prices?currencyCode=USD&$filter=")
    assert "armRegionName%20eq%20%27eastus%27" in path
    assert "armSkuName%20eq%20%27Standard_NC4as_T4_v3%27" in path
    following = "https://prices.azure.com:443/api/retail/prices?$skip=100"
    assert azure.next_link(azure_page(following=following)) == following
    assert azure.next_link(azure_page()) is None


@pytest.mark.parametrize("page", [{}, {"Items": None}, {"error": {"code": "BadRequest"}}], ids=str)
def test_what_is_no_azure_list(page: dict[str, object]) -> None:
    with pytest.raises(HeadraceError, match="Items"):
        list(azure.quotes(page))


def test_a_google_machine_is_the_sum_of_its_parts() -> None:
    (found,) = gcp.quotes(G2_PARTS, "us-central1", ["g2-standard-4"])
    assert found.usd_per_hour == pytest.approx(G2_STANDARD_4_USD)
    assert found.region == "us-central1"


@pytest.mark.parametrize("place", range(3))
def test_without_all_its_parts_a_google_machine_has_no_price(place: int) -> None:
    left = [sku for number, sku in enumerate(G2_PARTS) if number != place]
    preemptible = gcp_sku("Nvidia L4 GPU running in Iowa", "0", 1, category={"usageType": "Preemptible"})
    strange = [{}, {"category": None}, gcp_sku("G2 Instance Core running in Americas", "0", 1, pricingInfo=[])]
    assert list(gcp.quotes([*left, preemptible, *strange], "us-central1", ["g2-standard-4"])) == []
    assert list(gcp.quotes(G2_PARTS, "europe-west4", ["g2-standard-4"])) == []


def test_the_units_of_google_prices() -> None:
    monthly = gcp_sku("Nvidia L4 GPU running in Iowa", "400", 0, unit="mo")
    (found,) = gcp.quotes([*G2_PARTS, monthly], "us-central1", ["g2-standard-4"])
    assert found.usd_per_hour == pytest.approx(G2_STANDARD_4_USD)


def test_a_page_without_skus_is_no_google_list() -> None:
    assert gcp.skus_of({"skus": [*G2_PARTS], "nextPageToken": "more"}) == [*G2_PARTS]
    assert gcp.next_token({"nextPageToken": "more"}) == "more"
    with pytest.raises(HeadraceError, match="skus"):
        gcp.skus_of({"error": {"code": 403}})


def test_every_google_machine_in_the_prices_can_be_summed() -> None:
    assert {price.instance for price in shipped_prices() if price.provider == "GCP"} <= gcp.MACHINES.keys()
