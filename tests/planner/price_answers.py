"""Answers of price lists, written by us from the documented schemas; no provider sent them, and the prices are ours.

AWS: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html
Azure: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
Google: https://cloud.google.com/billing/docs/reference/rest/v1/services.skus/list
"""

import csv
import io
from collections.abc import Mapping

AWS_PREAMBLE = (
    ("FormatVersion", "v1.0"),
    ("Disclaimer", "This pricing list is for informational purposes only, as it says."),
    ("Publication Date", "2026-11-20T17:03:11Z"),
    ("Version", "20261120170311"),
    ("OfferCode", "AmazonEC2"),
)
AWS_ROW = {
    "SKU": "ABCDEFGHJKLMNPQR",
    "OfferTermCode": "JRTCKXETXF",
    "RateCode": "ABCDEFGHJKLMNPQR.JRTCKXETXF.6YS6EN2CT7",
    "TermType": "OnDemand",
    "PriceDescription": '$1.00 per On Demand Linux instance, "a quoted comma"',
    "EffectiveDate": "2026-11-01",
    "Unit": "Hrs",
    "PricePerUnit": "1.0000000000",
    "Currency": "USD",
    "Product Family": "Compute Instance",
    "Instance Type": "g6.xlarge",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "License Model": "No License required",
    "CapacityStatus": "Used",
    "operation": "RunInstances",
    "Pre Installed S/W": "NA",
    "MarketOption": "OnDemand",
    "Region Code": "us-east-1",
}


def aws_list(*rows: Mapping[str, str], leave_out: str = "") -> str:
    """A price list file of EC2 in CSV; each row is `AWS_ROW` with changes."""
    text, names = io.StringIO(newline=""), [name for name in AWS_ROW if name != leave_out]
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows(AWS_PREAMBLE)
    writer.writerow(names)
    writer.writerows([{**AWS_ROW, **row}[name] for name in names] for row in rows)
    return text.getvalue()


def azure_item(**changes: object) -> dict[str, object]:
    """One meter of a virtual machine."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": 3.5,
        "unitPrice": 3.5,
        "armRegionName": "eastus",
        "location": "US East",
        "effectiveStartDate": "2026-10-01T00:00:00Z",
        "meterId": "00000000-0000-0000-0000-000000000000",
        "meterName": "NC24ads A100 v4",
        "productId": "DZH318Z00000",
        "skuId": "DZH318Z00000/0000",
        "productName": "Virtual Machines NCads A100 v4 Series",
        "skuName": "NC24ads A100 v4",
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": "Standard_NC24ads_A100_v4",
    } | changes


def azure_page(*items: Mapping[str, object], following: str | None = None) -> dict[str, object]:
    """One page of the Retail Prices API."""
    return {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": list(items),
        "NextPageLink": following,
        "Count": len(items),
    }


def gcp_sku(description: str, units: str, nanos: int, *, unit: str = "h", **changes: object) -> dict[str, object]:
    """One part of machines, in us-central1 and us-east1."""
    rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": units, "nanos": nanos}}
    return {
        "name": "services/6F81-5844-456A/skus/0000-0000-0000",
        "skuId": "0000-0000-0000",
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "CPU",
            "usageType": "OnDemand",
        },
        "serviceRegions": ["us-central1", "us-east1"],
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": {"usageUnit": unit, "displayQuantity": 1, "tieredRates": [rate]},
                "currencyConversionRate": 1,
                "effectiveTime": "2026-11-23T18:41:02.128Z",
            }
        ],
        "serviceProviderName": "Google",
    } | changes


G2_PARTS = (
    gcp_sku("G2 Instance Core running in Americas", "0", 25_000_000),
    gcp_sku("G2 Instance Ram running in Americas", "0", 3_000_000, unit="GiBy.h"),
    gcp_sku("Nvidia L4 GPU running in Iowa", "0", 560_000_000),
)
"""What a g2-standard-4 is made of: 4 x 0.025 + 16 x 0.003 + 0.56 dollars an hour."""
G2_STANDARD_4_USD = 0.708
