"""Salesforce's objects: their fields, types and required values."""

from __future__ import annotations

from typing import Any

FIELDS: dict[str, dict[str, Any]] = {
    # name -> maximum length of the text, or a type
    "Account": {"Name": 255, "Website": 255, "OwnerId": "User", "Phone": 40},
    "Contact": {"FirstName": 40, "LastName": 80, "Email": 80, "Phone": 40, "MobilePhone": 40,
                "HomePhone": 40, "OtherPhone": 40, "MailingCountry": 80,
                "AccountId": "Account", "OwnerId": "User", "Title": 128, "Birthdate": "date",
                "HasOptedOutOfEmail": "flag"},
    "Lead": {"FirstName": 40, "LastName": 80, "Email": 80, "Phone": 40, "MobilePhone": 40,
             "Country": 80, "Company": 255, "Title": 128, "Website": 255, "Description": 32_000,
             "Status": ("pick", "Open - Not Contacted", "Working - Contacted", "Closed - Converted"),
             "LeadSource": ("pick", "Web", "Other"), "OwnerId": "User", "IsConverted": "flag",
             "ConvertedContactId": "Contact"},
    "Case": {"Subject": 255, "Description": 32_000, "Status": ("pick", "New", "Working", "Closed"),
             "Origin": ("pick", "Phone", "Email", "Web"), "AccountId": "Account",
             "ContactId": "Contact", "OwnerId": "User"},
    "Opportunity": {"Name": 120, "StageName": "stage", "CloseDate": "date", "Amount": "number",
                    "AccountId": "Account", "OwnerId": "User", "Description": 32_000,
                    "IsClosed": "flag"},
    "Event": {"Subject": 255, "StartDateTime": "time", "EndDateTime": "time", "Location": 255,
              "Description": 32_000, "WhoId": ("Contact", "Lead"), "WhatId": ("Opportunity", "Account", "Case"),
              "OwnerId": "User", "ShowAs": ("pick", "Busy", "Free", "OutOfOffice")},
    "OpportunityContactRole": {"OpportunityId": "Opportunity", "ContactId": "Contact",
                               "IsPrimary": "flag", "Role": 40},
    "EventRelation": {"EventId": "Event", "RelationId": "Contact", "IsParent": "flag",
                      "IsWhat": "flag", "IsInvitee": "flag", "Status": 40},
    "User": {"Email": 80, "Name": 121, "IsActive": "flag",
             "UserType": ("pick", "Standard", "PowerPartner", "PowerCustomerSuccess",
                          "CustomerSuccess", "CspLitePortal", "Guest", "CsnOnly")},
    "Organization": {"Name": 80, "Country": 80, "TimeZoneSidKey": 40},
    "OpportunityStage": {"ApiName": 40, "MasterLabel": 40, "SortOrder": "number",
                         "IsActive": "flag", "IsClosed": "flag"},
    "PermissionSet": {"Name": 80, "Label": 80},
    "PermissionSetAssignment": {"PermissionSetId": "PermissionSet", "AssigneeId": "User"},
    "FieldPermissions": {"ParentId": "PermissionSet", "SobjectType": 80, "Field": 80,
                         "PermissionsRead": "flag", "PermissionsEdit": "flag"},
}  # fmt: skip
PREFIXES = {"Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "Event": "00U",
            "OpportunityContactRole": "00K", "EventRelation": "0RE", "Organization": "00D",
            "PermissionSet": "0PS", "PermissionSetAssignment": "0Pa", "FieldPermissions": "01k",
            "OpportunityStage": "01J", "Lead": "00Q", "Case": "500"}  # fmt: skip
READ_ONLY = {("Opportunity", "IsClosed"), ("Lead", "IsConverted"), ("Lead", "ConvertedContactId")}
TYPES = {"flag": "boolean", "number": "currency", "double": "double", "percent": "percent",
         "date": "date", "time": "datetime", "clock": "time", "stage": "picklist",
         "address": "address", "location": "location", "base64": "base64"}  # fmt: skip
CUSTOM_TYPES: dict[str, Any] = {
    # https://developer.salesforce.com/docs/atlas.en-us.api_meta.meta/api_meta/meta_field_types.htm
    "Text": 255, "TextArea": 255, "LongTextArea": 32_768, "Html": 32_768, "EncryptedText": 175,
    "Phone": 40, "Email": 80, "Url": 255, "Number": "double", "Currency": "number",
    "Percent": "percent", "Checkbox": "flag", "Date": "date", "DateTime": "time", "Time": "clock",
    "Location": "location", "AutoNumber": 30, "Formula": 255,
}  # fmt: skip
TEXT_TYPES = {"TextArea": "textarea", "LongTextArea": "textarea", "Html": "textarea",
              "EncryptedText": "encryptedstring", "Phone": "phone", "Email": "email",
              "Url": "url"}  # fmt: skip
CALCULATED = {"AutoNumber", "Formula", "Location"}
"""Types of custom fields that accept no value: a location is written by its two parts."""
DEFAULTED = {"OwnerId", "Status"}
"""Fields that get a default in a new record and cannot be emptied."""
REQUIRED = {"Lead": ["LastName", "Company"], "Account": ["Name"], "Contact": ["LastName"],
            "Opportunity": ["Name", "StageName", "CloseDate"],
            "OpportunityContactRole": ["OpportunityId", "ContactId"],
            "EventRelation": ["EventId", "RelationId"], "PermissionSet": ["Name", "Label"],
            "PermissionSetAssignment": ["PermissionSetId", "AssigneeId"],
            "FieldPermissions": ["ParentId", "SobjectType", "Field"]}  # fmt: skip
DEMANDED = {"Event": ["StartDateTime", "EndDateTime"]}
"""Fields that describe calls nillable although a write needs them, according to the Object
Reference:
https://developer.salesforce.com/docs/platform/object-reference/references/standard-objects/object-event.html
"""
