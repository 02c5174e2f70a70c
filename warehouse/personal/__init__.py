"""Personal data: values that are encrypted on every way into the log, and decrypted on every way out of it.

================ ======================================================================================================
module           holds
================ ======================================================================================================
``key_store``    the interface of key stores, and how one is found by its URL
``object_keys``  the key store of files or objects beside the log
``ciphertext``   one value as text: its format, encryption and decryption
``personal_data`` the personal data of one log: payloads and tables, with a bounded cache of keys
``readable_sql`` decryption inside of DuckDB queries
================ ======================================================================================================
"""
