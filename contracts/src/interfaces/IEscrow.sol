// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice What a deposit is for and who may spend it. Its EIP-712 struct hash is the deposit's id.
/// @param requestor Who may thaw and withdraw. Cannot spend on providers unless it is also named as
/// a signer.
/// @param signer Must sign every statement: the operator's attester in a hosted deposit, the
/// requestor's agent in a bound or own one.
/// @param cosigner Must sign as well, unless it is zero.
/// @param token The ERC-20 that the deposit holds.
/// @param salt Anything; lets a requestor keep several deposits apart.
struct DepositKey {
    address requestor;
    address signer;
    address cosigner;
    address token;
    bytes32 salt;
}

/// @notice State of a deposit, one storage slot, never deleted.
/// @param balance Units held, what is thawing included.
/// @param thawing Units on their way out, at most the balance.
/// @param spent Units that statements have moved to providers so far.
/// @param epoch Number of statements settled so far.
/// @param thawEnds Time, in seconds since 1970, from which what is thawing can be withdrawn.
struct Deposit {
    uint64 balance;
    uint64 thawing;
    uint64 spent;
    uint32 epoch;
    uint32 thawEnds;
}

/// @title Escrow
/// @notice Holds requestors' deposits until statements spend them or the requestor withdraws them
/// after a thaw.
interface IEscrow {
    /// @notice `from` added `units` to deposit `id`.
    event Deposited(bytes32 indexed id, DepositKey key, address from, uint64 units);
    /// @notice The thawing amount of deposit `id` was set to `units`; they can be withdrawn from
    /// `ends`.
    /// @param ends Seconds since 1970; 0 when the thaw was cancelled.
    event Thawed(bytes32 indexed id, uint64 units, uint32 ends);
    /// @notice `units` left deposit `id` to `to`.
    event Withdrawn(bytes32 indexed id, address to, uint64 units);

    /// @notice The key names no requestor or no signer.
    error IncompleteKey();
    /// @notice An amount of zero units moves nothing.
    error ZeroUnits();
    /// @notice The deposit could exceed what its counters hold.
    error DepositTooLarge(uint256 units, uint256 room);
    /// @notice Only the requestor that the key names may do this.
    error NotRequestor(address caller, address requestor);
    /// @notice A thaw is limited to the balance.
    error ThawExceedsBalance(uint64 units, uint64 balance);
    /// @notice Nothing is thawing.
    error NothingThawing();
    /// @notice The thaw still runs until `ends`, in seconds since 1970.
    error StillThawing(uint32 ends);
    /// @notice A thaw period of zero would let a requestor outrun every statement.
    error ZeroThawPeriod();

    /// @notice Moves `units` of the key's token from the caller into the deposit, whoever its
    /// requestor is.
    /// @dev Emits {Deposited}. Leaves a running thaw alone. Reverts if the key is incomplete, the
    /// token is not registered, `units` is zero, the deposit would hold or have held more than 2^64
    /// − 1 units, or the token does not deliver the full amount.
    /// @param key The deposit.
    /// @param units Amount in units of the token.
    function deposit(DepositKey calldata key, uint64 units) external;

    /// @notice Sets the amount on its way out and restarts the clock; 0 cancels.
    /// @dev Emits {Thawed}. Statements spend what is not thawing first. Reverts unless called by
    /// the requestor, or if `units` exceeds the balance.
    function thaw(DepositKey calldata key, uint64 units) external;

    /// @notice Pays everything that has thawed to `to`.
    /// @dev Emits {Withdrawn}. Reverts unless called by the requestor, if nothing is thawing, if
    /// the thaw has not ended, if `to` is zero or this contract, or if the token's transfer fails.
    function withdraw(DepositKey calldata key, address to) external;

    /// @notice Seconds between a thaw and its withdrawal, the time that signed statements have to
    /// be settled.
    function THAW_PERIOD() external view returns (uint32);

    /// @notice Id of a deposit: the EIP-712 struct hash of its key. Not bound to chain or contract;
    /// digests are.
    function depositId(DepositKey calldata key) external pure returns (bytes32 id);

    /// @notice State of deposit `id`, all zero if it was never funded.
    function depositOf(bytes32 id) external view returns (Deposit memory);
}
